"""Labels: the classes of your own files, and the one label map of all tasks of a run.

    mrpc                  not_equivalent, equivalent                          the task's own order
    rte + mnli            entailment, not_entailment, neutral, contradiction  a union: equal labels are one class
    own files             those of the train file, sorted; numbers by value

A run of several tasks has one head over the union, trained over all of it; a row is predicted among the labels of its
own task. The map is that of ``model.config.id2label``, which is saved with the adapter.
"""

import os
from collections.abc import Sequence
from functools import lru_cache

from adapters import ConfigurationError
from seq2seq.errors import refusing
from seq2seq.tasks.files import read_rows
from seq2seq.tasks.rows import is_missing
from seq2seq.tasks.task_spec import TaskSpec, cell_text, number_of

MOST_LABELS = 1000
"""More distinct labels than this are free text."""


def label_map(specs: Sequence[TaskSpec]) -> tuple[str, ...]:
    """The classes of all tasks, each once, in the order of the head's outputs; none for numbers."""
    return tuple(dict.fromkeys(label for spec in specs for label in spec.labels or ()))


def train_labels(path: str | None) -> tuple[str, ...]:
    """The labels of a train file, sorted.

    Raises:
        ConfigurationError: there is no file, or its labels are not two or more classes.
    """
    if path is None:
        raise ConfigurationError(
            "Key 'labels' lists the classes of your own files if there is no train_file; got none: write them in the "
            "order in which the saved adapter's adapter_config.json has them."
        )
    with refusing("train_file", path):
        return _read_labels(path, os.stat(path).st_mtime_ns)


@lru_cache
def _read_labels(path: str, changed: int) -> tuple[str, ...]:
    """The labels of a file as it was when it was last changed."""
    cells = [row.get("label") for row in read_rows(path)]
    found = {cell_text(cell) for cell in cells if not is_missing(cell)} - {""}
    numbers = {label: number_of(label) for label in found}
    fraction = next((label for label, number in sorted(numbers.items()) if number is not None and number % 1), None)
    if fraction is not None:
        raise ConfigurationError(
            f"The labels of your own files are classes; got the number {fraction} in {path}: for numbers describe the "
            "task under the key 'tasks', with the metrics pearson and spearman and no labels."
        )
    if not 2 <= len(found) <= MOST_LABELS:
        raise ConfigurationError(
            f"A train file has a column 'label' with two to {MOST_LABELS} different labels; got {len(found)} in "
            f"{path}: check the column."
        )
    if None not in numbers.values():
        return tuple(sorted(found, key=lambda label: (numbers[label], label)))
    return tuple(sorted(found))
