"""Rows of a file to predict: those of one of the run's tasks, whose targets may be missing."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from adapters import ConfigurationError
from adapters.validation import nearest_name
from seq2seq.errors import refusing
from seq2seq.tasks.files import Row, list_rows, read_rows
from seq2seq.tasks.keys import TaskKeys
from seq2seq.tasks.rows import to_dataset
from seq2seq.tasks.task_spec import TaskSpec, cell_text, columns_of

logger = logging.getLogger(__name__)

NO_LABEL = "-1"
"""The class index of rows whose label is not published, such as those of GLUE's test splits on the hub."""


def rows_to_predict(keys: TaskKeys, path: Path, task: str | None) -> tuple[TaskSpec, DatasetDict]:
    """The task of a file's rows, and the rows as its split ``test``; a task whose rows have no targets has no metrics.

    Args:
        keys: those of the run.
        path: a file with the columns of the task's rows, in one of the formats of ``seq2seq.tasks.files``.
        task: which task of a mixture they belong to; None for the only one.

    Raises:
        ConfigurationError: the task is not one of the run's, or the file does not fit it.
    """
    specs = keys.specs
    names = [spec.name for spec in specs]
    if task is None and len(names) > 1:
        raise ConfigurationError(
            f"Option --task must name the task of the rows if the run has several; got none: write one of "
            f"{', '.join(names)}."
        )
    if task is not None and task not in names:
        raise ConfigurationError(
            f"Option --task must name a task of the run; got {task!r}: {nearest_name(task, names)}"
        )
    spec = specs[0 if task is None else names.index(task)]
    with refusing("file", path):
        header = spec.file_header and spec.file_header._replace(needed=spec.input_columns)
        rows = list(read_rows(path, header))
        lacking = [number for number, row in enumerate(rows, 1) if not has_target(spec, row)]
        if lacking:
            if len(lacking) < len(rows):
                logger.warning(
                    "No metric: %d of %d rows have no target (%s).", len(lacking), len(rows), list_rows(lacking)
                )
            spec = replace(spec, target="", labels=None, label_of=None, is_number=False, metrics=())
        examples, incomplete = to_dataset(spec, rows, str(path))
    if incomplete:
        raise ConfigurationError(
            f"Each row to predict must have the columns {', '.join(sorted(spec.input_columns))}; got "
            f"{len(incomplete)} incomplete ones in {path} ({list_rows(incomplete)}): complete or remove them."
        )
    return spec, DatasetDict({"test": examples})


def has_target(spec: TaskSpec, raw: Row) -> bool:
    """Whether a raw row has the cells that its target is made of."""
    return all(is_given(row.get(column)) for row in spec.flatten(raw) for column in columns_of(spec.target))


def is_given(cell: Any) -> bool:
    """Whether the cell of a target holds an answer."""
    return cell is not None and cell_text(cell) not in ("", "[]", "nan", NO_LABEL)
