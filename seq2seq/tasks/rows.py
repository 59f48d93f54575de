"""Turn the raw rows of a task into examples: check the columns and count incomplete rows."""

from collections.abc import Iterable

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
    for raw in rows:
        try:
            for row in spec.flatten(raw):
                if missing := needed - row.keys():
                    raise ValueError(
                        f"Rows need the columns {', '.join(sorted(needed))}; got {', '.join(row)} in {origin}, without "
                        f"{', '.join(sorted(missing))}: rename or add the columns."
                    )
                if any(row[column] is None or row[column] == [] for column in needed):
                    incomplete += 1
                else:
                    examples.append(spec.example(row))
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
