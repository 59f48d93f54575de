"""The workload ``classification``: a text or a pair of texts in, a label or a number out, by a model with a head.

keys      the JSON keys besides those of tasks     data      texts, and the token ids made of them
rules     which keys fit each other                model     the frozen model, and its head
labels    the one label map of a run               trainer   training, and metrics of labels and numbers
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from adapters import AdapterConfig, as_configs
from adapters.saved.labels import saved_labels
from seq2seq.classification.data import load_classification_data, padding_tokenizer, task_data
from seq2seq.classification.keys import ClassificationKeys
from seq2seq.classification.labels import label_map
from seq2seq.classification.model import load_classifier
from seq2seq.classification.rules import check_classification
from seq2seq.classification.trainer import ScoringClassificationTrainer, make_trainer
from seq2seq.tasks.baselines import task_baselines
from seq2seq.tasks.loading import TasksData
from seq2seq.tasks.positions import check_positions
from seq2seq.tasks.prediction import rows_to_predict
from seq2seq.workload import Baseline, Evaluation, Prepared


@dataclass(frozen=True, kw_only=True)
class ClassificationWorkload(ClassificationKeys):
    """Classification and regression of texts by a model with a head.

    ``ClassificationKeys`` has the keys.
    """

    def check(self, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
        check_classification(self, configs, training)

    @property
    def own_adapters(self) -> Sequence[AdapterConfig]:
        """The kind that trains the head, unless it is frozen."""
        return as_configs({"kind": "head"}) if self.head == "trained" else ()

    def of_run(self, adapter: Path) -> Self:
        """The labels of your own files are those of the saved adapter."""
        return self if self.task_names else replace(self, labels=saved_labels(adapter))

    def training_arguments(self) -> dict[str, Any]:
        return {"ddp_find_unused_parameters": True} if self.adapters_per_task else {}  # a step trains one task's

    def load_data(self, arguments: TrainingArguments) -> TasksData:
        return load_classification_data(self.with_labels(), arguments)

    def load_file(self, path: Path, task: str | None, arguments: TrainingArguments) -> TasksData:
        keys = self.with_labels()
        spec, splits = rows_to_predict(keys, path, task)
        tokenizer = padding_tokenizer(self.model_location)
        return TasksData({spec.name: task_data(keys, spec, splits, tokenizer)}, tokenizer)

    def load_model(self, random: bool = False) -> nn.Module:
        labels = label_map(self.with_labels().specs)
        tokenizer = padding_tokenizer(self.model_location)
        model = load_classifier(self.model_location, labels, self.dtype, tokenizer, self.head == "trained", random)
        check_positions(model, self.max_length, "'max_length'")
        return model

    def make_trainer(
        self, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()
    ) -> ScoringClassificationTrainer:
        return make_trainer(prepared, self.task_names if self.adapters_per_task else (), callbacks)

    def evaluate(self, prepared: Prepared, trainer: ScoringClassificationTrainer, split: str) -> Evaluation:
        return trainer.score(split)

    def samples(self, prepared: Prepared) -> Mapping[str, Dataset]:
        return prepared.data.samples()

    def baselines(self) -> Mapping[str, Baseline]:
        return task_baselines(free_text=None)
