"""`TaskSpec`: how a row of a data set becomes a source text (the model's input) and a target text (its output).

A row passes three stages:

    raw row     as read from a file or the hub           {"is_duplicate": "1", "question1": "...", ...}
    flat row    the hub's column names, one answer each  {"label": "1", "question1": "...", ...}
    example     what the model sees                      {"source": "qqp question1: ...", "target": "duplicate"}

The tasks themselves, with their templates, are in `seq2seq.tasks.registry`.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from seq2seq.tasks.files import Row

SIMILARITY_LABELS = tuple(f"{step / 5:.1f}" for step in range(26))
"""The 26 labels of a similarity task: "0.0", "0.2", ..., "5.0"."""


def similarity_label(score: float | str) -> str:
    """Round a score in [0, 5] to its label, round(5 * score) / 5 with one decimal (Raffel et al. 2020, section 2.4)."""
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 <= value <= 5.0:
        raise ValueError(f"A similarity score must be a number in [0, 5]; got {score!r}: rescale the scores.")
    return f"{round(5 * value) / 5:.1f}"


@dataclass(frozen=True)
class TaskSpec:
    """A text-to-text task.

    `labels` are the possible answers in the order of the data set's class indices; None means free text.
    """

    name: str
    source: str  # the template, over the flat row's columns
    metrics: tuple[str, ...]  # keys of seq2seq.tasks.metric_classes.METRICS
    labels: tuple[str, ...] | None = None
    target: str = "label"  # the column of the answer; a list holds all accepted answers
    split: str = "small"  # key of seq2seq.tasks.splits.SPLIT_POLICIES
    hub: tuple[str, str] | None = None  # repository and configuration
    folder: str = ""  # the task's folder in the official download
    data_dir: str | None = None  # parent of the folder relative to the project's root, for the project's own tasks
    header: tuple[str, ...] | None = None  # column names, if the official tsv has no header line
    rename: Mapping[str, str] = field(default_factory=dict)  # official column -> the hub's column
    unpack: Callable[[Row], Iterable[Row]] | None = None  # one raw row -> flat rows
    group: str | None = None  # template for the name of the question that a row belongs to

    @property
    def is_similarity(self) -> bool:
        """Whether the answers are scores, which are compared by correlation."""
        return self.labels == SIMILARITY_LABELS

    @property
    def columns(self) -> frozenset[str]:
        """The columns a flat row must have."""
        templates = Formatter().parse(self.source + (self.group or ""))
        return frozenset({self.target, *(name.partition("[")[0] for _, name, _, _ in templates if name)})

    @property
    def text_columns(self) -> frozenset[str]:
        """The columns whose cells become text: those of the source, and the target if it is free text."""
        names = {name.partition("[")[0] for _, name, _, _ in Formatter().parse(self.source) if name}
        return frozenset(names if self.labels is not None else {*names, self.target})

    def flatten(self, raw: Row) -> Iterable[Row]:
        """Return the flat rows of one raw row."""
        row = {self.rename.get(column, column): value for column, value in raw.items()}
        return self.unpack(row) if self.unpack else [row]

    def example(self, row: Row) -> dict[str, Any]:
        """Make an example of a flat row: `source`, `target`, and `answers` and `group` if the task has them.

        Raises:
            ValueError: the answer is not one of the task's labels.
        """
        example = {"source": self.source.format_map(row).strip(), "target": self.target_of(row)}
        if isinstance(row[self.target], list):
            example["answers"] = [str(answer) for answer in row[self.target]]
        if self.group is not None:
            example["group"] = self.group.format_map(row)
        return example

    def target_of(self, row: Row) -> str:
        """Return the target text of a flat row, whose answer is a label or its class index, a score, or free text."""
        answer = row[self.target]
        if isinstance(answer, list):
            answer = answer[0]
        if self.labels is None:
            return str(answer)
        if self.is_similarity:
            return similarity_label(answer)
        if answer in self.labels:
            return answer
        try:
            index = int(answer) if isinstance(answer, str) else operator.index(answer)
        except (TypeError, ValueError):
            index = -1
        if not 0 <= index < len(self.labels):
            raise ValueError(
                f"Task {self.name!r} has the labels {', '.join(self.labels)}, given by name or by index from 0; got "
                f"{answer!r} in a row: use files with labels (GLUE's official test files have none)."
            )
        return self.labels[index]

    def parse(self, text: str) -> int | float | str | None:
        """Parse a generated text into a class index, a score or free text; None if it is not one of the labels."""
        answer = text.strip()
        if self.labels is None:
            return answer
        if answer not in self.labels:
            return None
        return float(answer) if self.is_similarity else self.labels.index(answer)
