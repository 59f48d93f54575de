"""The JSON keys of the workload ``classification``, and what follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from transformers import TrainingArguments

from seq2seq.classification.labels import train_labels
from seq2seq.tasks.keys import TaskKeys
from seq2seq.tasks.registry import CUSTOM_TEXTS
from seq2seq.tasks.task_spec import TaskSpec


@dataclass(frozen=True, kw_only=True)
class ClassificationKeys(TaskKeys):
    """The fields are the keys; your own files have the columns ``text``, optionally ``text_pair``, and ``label``.

    Args:
        labels: the classes of your own files, in the order of the head's outputs; None for those of the train file.
        max_length: tokens of a text and its pair; longer ones are truncated.
        head: "trained" beside the adapters, or "frozen" as it was loaded or initialised.
    """

    name = "classification"
    arguments_class = TrainingArguments
    own_files = CUSTOM_TEXTS
    other_names: ClassVar[Mapping[str, str]] = {
        **{key: value for key, value in TaskKeys.other_names.items() if key != "labels"},
        "max_source_length": "max_length",
        "max_seq_length": "max_length",
        "num_labels": "labels",
    }
    flags = ("average_metrics", "constant_predictions", "invalid")
    notes: ClassVar[Mapping[str, str]] = {"invalid": "no output is finite", **TaskKeys.notes}
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {**TaskKeys.ranges, "max_length": (4, 1e6)}

    labels: tuple[str, ...] | None = None
    max_length: int = 128
    head: Literal["trained", "frozen"] = "trained"

    @property
    def specs(self) -> list[TaskSpec]:
        """The tasks as a classifier has them."""
        return [self._of_texts(spec) for spec in super().specs]

    def _of_texts(self, spec: TaskSpec) -> TaskSpec:
        if self.task_names or self.labels is None:
            return spec.of_texts()
        return replace(spec, labels=self.labels, label_of={label: label for label in self.labels})

    def with_labels(self) -> Self:
        """The same keys with the classes of your own files, if they are not given.

        Raises:
            ConfigurationError: the train file has none, or there is no train file.
        """
        if self.task_names or self.labels is not None:
            return self
        return replace(self, labels=train_labels(self.specs[0].files.get("train")))

    @property
    def is_regression(self) -> bool:
        """Whether the answers are numbers."""
        return any(spec.is_number for spec in self.specs)
