"""Rows of a task to examples: columns checked, broken rows counted."""

from collections.abc import Iterable

from datasets import Dataset

from seq2seq.tasks.files import Row
from seq2seq.tasks.task_spec import TaskSpec


def to_dataset(spec: TaskSpec, rows: Iterable[Row], origin: str) -> tuple[Dataset, int]:
    """The examples of the rows, and how many rows lack a cell and give none."""
    examples, broken, needed = [], 0, spec.columns
    for raw in rows:
        try:
            for row in spec.flatten(raw):
                if missing := needed - row.keys():
                    raise ValueError(
                        f"Rows need the columns {', '.join(sorted(needed))}; {origin} has {', '.join(row)} "
                        f"and lacks {', '.join(sorted(missing))}. Rename or add the columns."
                    )
                if any(row[column] is None or row[column] == [] for column in needed):
                    broken += 1
                else:
                    examples.append(spec.example(row))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"Rows of task {spec.name!r} are nested as in the official files or flat as on the hub; {origin} has "
                f"{', '.join(raw)} ({type(error).__name__}: {error}). Give the task's own files."
            ) from error
    if not examples:
        raise ValueError(f"A split has at least one whole row; {origin} has none. Give data with rows.")
    if any("answers" in example for example in examples):
        for example in examples:
            example.setdefault("answers", [example["target"]])
    return Dataset.from_list(examples), broken
