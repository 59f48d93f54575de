"""Your own tasks: described in JSON under the key ``tasks``, or by an installed package.

    "tasks": {
        "toxicity": {
            "files": {"train": "data/train.csv", "validation": "data/val.csv", "test": "data/test.csv"},
            "source": "toxicity comment: {comment}",
            "target": "{label}",
            "labels": {"0": "fine", "1": "toxic"},
            "metrics": ["accuracy", "f1"]
        },
        "reply": {
            "files": {"train": "data/replies.csv"},
            "texts": ["{comment}", "{reply}"],
            "target": "{agreement}",
            "metrics": ["pearson", "spearman"]
        }
    },
    "task_name": "toxicity"

A package offers a task by an entry point of the group ``tensorized_adapters.tasks``, whose name is the task's: an
object of this form, with absolute paths, or a ``TaskSpec``.

    [project.entry-points."tensorized_adapters.tasks"]
    toxicity = "my_package.tasks:TOXICITY"
"""

import os
import re
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import entry_points
from string import Formatter
from typing import Any

from adapters import ConfigurationError
from adapters.validation import check_keys, from_json, nearest_name, refuse
from seq2seq import SPLITS
from seq2seq.tasks.metric_classes import METRICS
from seq2seq.tasks.task_spec import TaskSpec, number_of

ENTRY_POINTS = "tensorized_adapters.tasks"
"""The group of entry points by which installed packages offer tasks."""


@dataclass(frozen=True, kw_only=True)
class DescribedTask:
    """A task of user-defined files.

    Args:
        name: its name.
        files: a tsv, csv, jsonl, json or parquet file for each of the splits train, validation and test, or some.
        source: template of the model's input; {column} is the cell of a row. By default the texts, joined by a space.
        texts: templates of what a classifier reads: a text, or a text and its pair. By default the source.
        target: the same for the output. A cell of a single column may be a list of accepted answers, if the answers are
            free text.
        labels: the possible answers, given in the files by name or by index from 0; or the label of each cell; None for
            free text or, with correlations, for numbers. The second label is the positive class of F1.
        metrics: keys of ``METRICS``; their mean chooses the best checkpoint.
        group: template for the name of the question that a row belongs to, for ``question_exact_match``.

    Raises:
        ConfigurationError: a value is not valid, or two do not fit each other.
    """

    name: str
    files: dict[str, str]
    source: str | None = None
    texts: tuple[str, ...] = ()
    target: str
    metrics: tuple[str, ...]
    labels: tuple[str, ...] | dict[str, str] | None = None
    group: str | None = None

    @classmethod
    def from_dict(cls, name: str, values: Any) -> "DescribedTask":
        """Read a description; ~ in the paths is the home directory."""
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"A task of the key 'tasks' is an object; got {values!r} for {name!r}: give its files, source, target "
                "and metrics."
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ConfigurationError(
                f"A task of the key 'tasks' has a name of letters, digits, '_' and '-'; got {name!r}: rename it."
            )
        if "name" in values:
            refuse("name", "is the key of the description", repr(values["name"]), "leave it out", f"task {name!r}")
        return from_json(cls, {"name": name, **values}, f"task {name!r}")

    def __post_init__(self) -> None:
        self._check_files()
        for key in ("source", "target", "group"):
            if getattr(self, key) is not None:
                self._check_template(key, getattr(self, key))
        for template in self.texts:
            self._check_template("texts", template)
        if self.source is None and not self.texts:
            self._refuse("source", "is what the model reads", "none", "give it, or the texts of a classifier")
        if len(self.texts) > 2:
            self._refuse("texts", "has a text, or a text and its pair", list(self.texts), "join some in one template")
        self._check_labels()
        self._check_metrics()

    @property
    def spec(self) -> TaskSpec:
        """The task as the rest of the library knows it."""
        given = isinstance(self.labels, dict)
        return TaskSpec(
            name=self.name,
            source=self.source or " ".join(self.texts),
            texts=self.texts,
            target=self.target,
            metrics=self.metrics,
            labels=self._label_names,
            label_of=self.labels if given else None,
            is_number=self.labels is None and any(METRICS[name].compares == "number" for name in self.metrics),
            split="given",
            files=self.files,
            group=self.group,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads back."""
        lists = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in lists.items() if key != "name" and (key != "texts" or value)}

    @property
    def _refuse(self) -> Any:
        return partial(refuse, where=f"task {self.name!r}")

    @property
    def _label_names(self) -> tuple[str, ...] | None:
        if self.labels is None:
            return None
        return tuple(dict.fromkeys(self.labels.values())) if isinstance(self.labels, dict) else self.labels

    def _check_files(self) -> None:
        check_keys(self.files, SPLITS, f"the key 'files' of task {self.name!r}")
        if not self.files:
            self._refuse("files", "has a file for a split", "none", f"give one of {', '.join(SPLITS)}")
        ordered = {split: os.path.expanduser(self.files[split]) for split in SPLITS if split in self.files}
        object.__setattr__(self, "files", ordered)

    def _check_template(self, key: str, template: str) -> None:
        rule, fix = "is a template of columns in braces, such as '{text}'", "write a brace of the text itself twice"
        try:
            parts = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
        except ValueError as error:
            self._refuse(key, rule, f"{template!r} ({error})", fix)
        for column, specification, conversion in parts:
            if not column or column.isdecimal() or re.search(r"[.\[\]]", column) or specification or conversion:
                given = f"{template!r}, where a name is empty or a number, or has one of . [ ] : !"
                self._refuse(key, rule, given, "rename the column in the file")
        if not parts:
            self._refuse(key, "has at least one column", repr(template), f"write {{{template}}} for a column")

    def _check_labels(self) -> None:
        names = self._label_names
        if names is None:
            return
        given = isinstance(self.labels, dict)
        if len(names) < 2:
            self._refuse("labels", "has two or more labels", list(names), "add one, or leave them out for free text")
        for name in names:
            if names.count(name) > 1:
                self._refuse("labels", "has each label once", f"{name!r} twice", "drop one")
            if not name or name != name.strip():
                rule = "has texts without space around them"
                self._refuse("labels", rule, repr(name), "correct it" if given else "write the label as in the files")

    def _check_metrics(self) -> None:
        if not self.metrics:
            self._refuse("metrics", "names at least one metric", "an empty list", f"known are {', '.join(METRICS)}")
        labels = self._label_names
        for name in self.metrics:
            if name not in METRICS:
                self._refuse("metrics", "names metrics", repr(name), nearest_name(name, METRICS))
            if self.metrics.count(name) > 1:
                self._refuse("metrics", "names each metric once", f"{name!r} twice", "drop one")
            metric = METRICS[name]
            texts = ", ".join(other for other, cls in METRICS.items() if cls.compares == "text")
            if metric.compares == "class" and labels is None:
                self._refuse("metrics", f"has {name!r} for tasks with labels", "none", f"add labels, or use {texts}")
            if metric.is_binary and len(labels) != 2:
                given = f"the labels {', '.join(labels)}"
                self._refuse("metrics", f"has {name!r} for two labels", given, "use macro_f1 or accuracy")
            if metric.compares == "number" and labels and any(number_of(label) is None for label in labels):
                given = f"the labels {', '.join(labels)}"
                fix = "leave the labels out if the answers are numbers, or use accuracy"
                self._refuse("metrics", f"has {name!r} for answers that are numbers", given, fix)
        if any(METRICS[name].needs_groups for name in self.metrics) != (self.group is not None):
            rule = "is set if and only if question_exact_match is a metric"
            self._refuse("group", rule, f"{self.group!r} with {', '.join(self.metrics)}", "set both or neither")


class DescribedTasks(dict[str, DescribedTask]):
    """The tasks of a configuration's key ``tasks``, by name."""

    @classmethod
    def from_dict(cls, values: Any) -> "DescribedTasks":
        """Read all descriptions.

        Raises:
            ConfigurationError: one of them is not valid.
        """
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key 'tasks' is an object of your own tasks by name; got {values!r}: write for example "
                '{"mine": {"files": {"train": "train.tsv"}, "source": "{text}", "target": "{label}", "metrics": '
                '["exact_match"]}}.'
            )
        return cls({name: DescribedTask.from_dict(name, value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads back."""
        return {name: task.to_dict() for name, task in self.items()}

    @property
    def specs(self) -> dict[str, TaskSpec]:
        """The tasks by name."""
        return {name: task.spec for name, task in self.items()}


def installed_names() -> list[str]:
    """The names of the tasks that installed packages offer."""
    return sorted(entry_points(group=ENTRY_POINTS).names)


def installed_task(name: str) -> TaskSpec:
    """Load the task of this name from the package that offers it.

    Raises:
        ConfigurationError: it cannot be imported, or is not a task.
    """
    (entry, *others) = entry_points(group=ENTRY_POINTS, name=name)
    given = f"{entry.value!r} of the entry point {name!r}"
    try:
        if others:
            raise ValueError(f"{len(others) + 1} packages offer it")
        found = entry.load()
        if isinstance(found, dict):
            return DescribedTask.from_dict(name, found).spec
        if not isinstance(found, TaskSpec):
            raise TypeError(f"its type is {type(found).__name__}")
        return replace(found, name=name)
    except Exception as error:  # whatever the package's own code raises
        raise ConfigurationError(
            f"An installed task is a TaskSpec or the JSON object of one; got {given}, which cannot be used "
            f"({' '.join(str(error).split()).rstrip('.')}): correct or remove that package."
        ) from error
