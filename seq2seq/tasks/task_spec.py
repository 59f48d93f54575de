"""`TaskSpec`: how a row of a data set becomes a source text (the model's input) and a target text (its output).

A row passes three stages:

    raw row     as read from a file or the hub           {"is_duplicate": "1", "question1": "...", ...}
    flat row    the hub's column names, one answer each  {"label": "1", "question1": "...", ...}
    example     what the model sees                      {"source": "qqp question1: ...", "target": "duplicate"}
                or a classifier, see `of_texts`          {"text": "...", "text_pair": "...", "target": "duplicate"}

The tasks themselves, with their templates, are in `seq2seq.tasks.registry`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Any

import numpy as np

from seq2seq.tasks.files import Header, Row

INPUT_COLUMNS = ("source", "text", "text_pair")
"""The columns of an example that a model may read."""

SIMILARITY_LABELS = tuple(f"{step / 5:.1f}" for step in range(26))
"""The 26 labels of a similarity task: "0.0", "0.2", ..., "5.0"."""


def similarity_label(score: float | str, where: str = "a row") -> str:
    """Round a score in [0, 5] to its label, round(5 * score) / 5 with one decimal (Raffel et al. 2020, section 2.4).

    Raises:
        ValueError: it is not such a score; the message says ``where`` it is.
    """
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 <= value <= 5.0:
        raise ValueError(
            f"A similarity score must be a number in [0, 5]; got {score!r} in {where}: rescale the scores."
        )
    return f"{round(5 * value) / 5:.1f}"


@dataclass(frozen=True)
class TaskSpec:
    """A task: what a model reads, and the answer.

    `labels` are the possible answers in the order of the data set's class indices; None means free text, or a number.
    Templates have columns of the flat row in braces; free text of a single column may be a list of accepted answers.
    """

    name: str
    source: str  # template of the model's input; "" for a classifier, which reads the `texts`
    metrics: tuple[str, ...]  # keys of seq2seq.tasks.metric_classes.METRICS
    labels: tuple[str, ...] | None = None
    label_of: Mapping[str, str] | None = None  # cell of the target -> label; by default its name or class index
    is_number: bool = False  # whether an answer without labels is a number
    target: str = "{label}"  # template of the answer
    texts: tuple[str, ...] = ()  # templates of a text, or of a text and its pair; none if the task is no such thing
    split: str = "small"  # key of seq2seq.tasks.splits.SPLIT_POLICIES
    files: Mapping[str, str] = field(default_factory=dict)  # split -> path, for tasks of user-defined files
    hub: tuple[str, str] | None = None  # repository and configuration
    folder: str = ""  # the task's folder in the official download
    data_dir: str | None = None  # parent of the folder relative to the project's root, for the project's own tasks
    header: tuple[str, ...] | None = None  # column names, if the official tsv has no header line
    rename: Mapping[str, str] = field(default_factory=dict)  # official column -> the hub's column
    unpack: Callable[[Row], Iterable[Row]] | None = None  # one raw row -> flat rows
    group: str | None = None  # template for the name of the question that a row belongs to

    def __post_init__(self) -> None:
        if self.target and not columns_of(self.target):
            raise ValueError(
                f"The target of a task is a template with a column in braces; got {self.target!r} for {self.name!r}: "
                f"write '{{{self.target}}}'."
            )

    @property
    def inputs(self) -> dict[str, str]:
        """The templates of what the model reads, by the example's column."""
        return {"source": self.source} if self.source else dict(zip(INPUT_COLUMNS[1:], self.texts, strict=False))

    @property
    def input_columns(self) -> frozenset[str]:
        """The columns of a flat row that the model reads."""
        return frozenset().union(*map(columns_of, self.inputs.values()))

    def of_texts(self) -> "TaskSpec":
        """The task as a classifier has it: the `texts` instead of the source, and numbers for similarity labels.

        The text of a task of user-defined files without `texts` is its source.
        """
        numbers = {"labels": None, "is_number": True} if self.is_similarity else {}
        texts = self.texts or ((self.source,) if self.files else ())
        return replace(self, source="", texts=texts, **numbers)

    @property
    def is_similarity(self) -> bool:
        """Whether the answers are the labels of a similarity task, which are numbers."""
        return self.labels == SIMILARITY_LABELS

    @property
    def target_column(self) -> str | None:
        """The column of the answer, if the target is a single one."""
        names = columns_of(self.target)
        return next(iter(names)) if self.target in {f"{{{name}}}" for name in names} else None

    @property
    def list_column(self) -> str | None:
        """The column whose cells may be lists of accepted answers: a target of free text."""
        return self.target_column if self.labels is None and not self.is_number else None

    @property
    def file_header(self) -> Header | None:
        """How to read a tsv or csv file whose header line is optional."""
        return None if self.header is None else Header(self.header, self.columns)

    @property
    def columns(self) -> frozenset[str]:
        """The columns a flat row must have."""
        return self.input_columns | columns_of(self.target) | columns_of(self.group or "")

    @property
    def text_columns(self) -> frozenset[str]:
        """The columns whose cells become text: those that the model reads, and of a target that is no label."""
        names = columns_of(self.target)
        return self.input_columns | (names if self.labels is None else names - {self.target_column})

    def flatten(self, raw: Row) -> Iterable[Row]:
        """Return the flat rows of one raw row."""
        row = {self.rename.get(column, column): value for column, value in raw.items()}
        return self.unpack(row) if self.unpack else [row]

    def example(self, row: Row, where: str = "a row") -> dict[str, Any]:
        """Make an example of a flat row: its inputs, `target`, and `answers` and `group` if the task has them.

        Raises:
            ValueError: the answer is not one of the task's labels; the message says ``where`` it is.
        """
        example = {column: template.format_map(row).strip() for column, template in self.inputs.items()}
        example["target"] = self.target_of(row, where)
        answers = row[self.list_column] if self.list_column is not None else None
        if isinstance(answers, list):
            example["answers"] = [str(answer) for answer in answers]
        if self.group is not None:
            example["group"] = self.group.format_map(row)
        return example

    def target_of(self, row: Row, where: str = "a row") -> str:
        """Return the target text of a flat row, whose answer is a label or its class index, a number, or free text."""
        answer = self.target.format_map(row) if self.target_column is None else row[self.target_column]
        if self.is_similarity:
            return similarity_label(answer, where)
        if self.labels is not None:
            return self._label_of(answer, where)
        text = str(answer[0] if isinstance(answer, list) else answer)
        if self.is_number and number_of(text) is None:
            raise ValueError(f"The answers of task {self.name!r} are numbers; got {answer!r} in {where}: correct it.")
        return text

    def parse(self, text: str) -> int | float | str | None:
        """Parse a generated text into a class index, a number or free text; None if it is not a label or number."""
        answer = text.strip()
        if self.labels is None:
            return number_of(answer) if self.is_number else answer
        if answer not in self.labels:
            return None
        return float(answer) if self.is_similarity else self.labels.index(answer)

    def _label_of(self, answer: Any, where: str) -> str:
        text = cell_text(answer)
        if self.label_of is not None:
            if text in self.label_of:
                return self.label_of[text]
            raise ValueError(
                f"The labels of task {self.name!r} are given for the cells {', '.join(map(repr, self.label_of))}; got "
                f"{answer!r} in {where}: add it to the labels, or correct the row."
            )
        by_name = [label for label in self.labels if text == label] or [
            label for label in self.labels if text.casefold() == label.casefold()
        ]
        if len(by_name) == 1:
            return by_name[0]
        index = {"false": "0", "true": "1"}.get(text, text)
        if index.isdecimal() and int(index) < len(self.labels):
            return self.labels[int(index)]
        hint = " (GLUE's official test files have none)" if self.hub else ""
        raise ValueError(
            f"Task {self.name!r} has the labels {', '.join(self.labels)}, given by name or by index from 0; got "
            f"{answer!r} in {where}: use files with labels{hint}."
        )


def columns_of(template: str) -> frozenset[str]:
    """The columns that a template names."""
    return frozenset(name.partition("[")[0] for _, name, _, _ in Formatter().parse(template) if name)


def cell_text(value: Any) -> str:
    """A cell as text, spelled as in JSON: "true", "1", and "1" for the float 1.0, which tables make of integers."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def number_of(text: str) -> float | None:
    """The finite number that a text spells, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
