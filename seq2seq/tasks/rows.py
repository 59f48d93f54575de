"""Turn the raw rows of a task into examples: check columns and cells, and report incomplete rows by number.

a text, a number, true or false       the cell's text: "0.5", "true"
null, NaN, an empty list              a missing cell; its row is skipped and reported
a list of texts and numbers           several accepted answers, in the column of the target
anything else                         refused, with the number of the row
"""

import math
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

from datasets import Dataset

from seq2seq.tasks.files import Row, list_rows
from seq2seq.tasks.task_spec import TaskSpec


class Rows(NamedTuple):
    """Examples, and the numbers of the raw rows that were skipped because a cell is missing, from 1."""

    examples: Dataset
    incomplete: list[int]


def to_dataset(spec: TaskSpec, rows: Iterable[Row], origin: str) -> Rows:
    """Turn raw rows into examples.

    Args:
        spec: the task.
        rows: raw rows, as a file or the hub gives them.
        origin: what error messages call the rows.

    Returns:
        A data set with the columns of `TaskSpec.example` and `row`, the number of the raw row from 1; and the rows that
        were skipped.

    Raises:
        ValueError: a column is missing, a row has another structure, or no row is complete.
    """
    examples, incomplete, needed = [], [], spec.columns
    for number, raw in enumerate(rows, 1):
        where = f"row {number} of {origin}"
        try:
            for row in spec.flatten(raw):
                if missing := needed - row.keys():
                    raise ValueError(
                        f"Rows need the columns {', '.join(sorted(needed))}; got {_names(row)} in {where}, without "
                        f"{', '.join(sorted(missing))}: rename or add the columns."
                    )
                if any(is_missing(row[column]) for column in needed):
                    incomplete.append(number)
                    continue
                if spec.labels is not None and spec.target_column is not None:
                    _cell(row[spec.target_column], may_be_list=False)  # a label is compared as it is
                cells = {column: _cell(row[column], column == spec.list_column) for column in spec.text_columns}
                examples.append({**spec.example({**row, **cells}, where), "row": number})
        except _CellError as error:
            raise ValueError(
                f"A cell holds text, a number, true or false, and that of a target also a list of them; got {error} in "
                f"{where}: write it as text."
            ) from None
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"Rows of task {spec.name!r} are nested as in the official files or flat as on the hub; got "
                f"{_names(raw)} in {where} ({type(error).__name__}: {error}): use the task's official files."
            ) from error
    if not examples:
        skipped, fix = "", "add rows"
        if incomplete:
            skipped, fix = f", where {list_rows(incomplete)} lack a cell or have too many", "complete them"
            if spec.header is not None:
                fix = f"name the columns {', '.join(sorted(needed))} in a header line, or use {', '.join(spec.header)}"
        raise ValueError(f"A split needs at least one complete row; got none in {origin}{skipped}: {fix}.")
    if any("answers" in example for example in examples):
        for example in examples:
            example.setdefault("answers", [example["target"]])
    return Rows(Dataset.from_list(examples), incomplete)


def _names(row: Row) -> str:
    """The columns of a row; in a file without a header line they are cells, which may be long."""
    return ", ".join(textwrap.shorten(str(name), 60, placeholder="...") for name in row)


class _CellError(Exception):
    """A cell that is no text."""


def is_missing(value: Any) -> bool:
    """Whether a cell has nothing in it."""
    return value is None or value == [] or (isinstance(value, float) and math.isnan(value))


def _cell(value: Any, may_be_list: bool) -> Any:
    """Return a cell as text or number, or a list of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float) and not is_missing(value) and value not in (math.inf, -math.inf):
        return value
    if may_be_list and isinstance(value, list):
        return [_cell(item, may_be_list=False) for item in value]
    raise _CellError(repr(value))
