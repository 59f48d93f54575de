"""Turn the raw rows of a task into examples: check columns and cells, and count incomplete rows.

a text, a number, true or false       the cell's text: "0.5", "true"
null, NaN, an empty list              a missing cell; its row is skipped and counted
a list of texts and numbers           several accepted answers, in the column of the target
anything else                         refused, with the number of the row
"""

import math
from collections.abc import Iterable
from typing import Any

from datasets import Dataset

from seq2seq.tasks.files import Row
from seq2seq.tasks.task_spec import TaskSpec


def to_dataset(spec: TaskSpec, rows: Iterable[Row], origin: str) -> tuple[Dataset, int]:
    """Turn raw rows into examples.

    Args:
        spec: the task.
        rows: raw rows, as a file or the hub gives them.
        origin: what error messages call the rows.

    Returns:
        A data set with the columns of `TaskSpec.example`, and the number of rows skipped because a cell is missing.

    Raises:
        ValueError: a column is missing, a row has another structure, or no row is complete.
    """
    examples, incomplete, needed = [], 0, spec.columns
    for number, raw in enumerate(rows, 1):
        try:
            for row in spec.flatten(raw):
                if missing := needed - row.keys():
                    raise ValueError(
                        f"Rows need the columns {', '.join(sorted(needed))}; got {', '.join(row)} in {origin}, without "
                        f"{', '.join(sorted(missing))}: rename or add the columns."
                    )
                if any(_is_missing(row[column]) for column in needed):
                    incomplete += 1
                    continue
                cells = {column: _cell(row[column], column == spec.target) for column in spec.text_columns}
                examples.append(spec.example({**row, **cells}))
        except _CellError as error:
            raise ValueError(
                f"A cell holds text, a number, true or false, and that of a target also a list of them; got {error} in "
                f"row {number} of {origin}: write it as text."
            ) from None
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"Rows of task {spec.name!r} are nested as in the official files or flat as on the hub; got "
                f"{', '.join(raw)} in {origin} ({type(error).__name__}: {error}): use the task's official files."
            ) from error
    if not examples:
        raise ValueError(f"A split needs at least one complete row; got none in {origin}: add rows.")
    if any("answers" in example for example in examples):
        for example in examples:
            example.setdefault("answers", [example["target"]])
    return Dataset.from_list(examples), incomplete


class _CellError(Exception):
    """A cell that is no text."""


def _is_missing(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, float) and math.isnan(value))


def _cell(value: Any, may_be_list: bool) -> Any:
    """Return a cell as text or number, or a list of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float) and not _is_missing(value):
        return value
    if may_be_list and isinstance(value, list):
        return [_cell(item, may_be_list=False) for item in value]
    raise _CellError(repr(value))
