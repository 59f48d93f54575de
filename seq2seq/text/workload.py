"""The workload ``text``: text in, text out, by a T5 that generates its answers (Raffel et al. 2020, arXiv:1910.10683).

keys        the JSON keys besides those of tasks        round_trip      targets that the tokenizer cannot write
data        texts, and the token ids made of them       encoding        the same of one split
backbone    the frozen T5                               trainer         training, and metrics of generated texts
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import Seq2SeqTrainingArguments, TrainerCallback

from adapters import AdapterConfig
from seq2seq.tasks.baselines import task_baselines
from seq2seq.tasks.loading import TasksData
from seq2seq.tasks.prediction import rows_to_predict
from seq2seq.tasks.rules import check_tasks
from seq2seq.tasks.tokenizers import load_tokenizer
from seq2seq.text.backbone import load_backbone
from seq2seq.text.data import TextTaskData, encode, load_text_data
from seq2seq.text.keys import TextKeys
from seq2seq.text.trainer import TextTrainer, make_trainer
from seq2seq.workload import Baseline, Evaluation, Prepared


@dataclass(frozen=True, kw_only=True)
class TextWorkload(TextKeys):
    """Text-to-text tasks by a T5 that generates its answers.

    ``TextKeys`` has the keys.
    """

    def check(self, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
        check_tasks(self, configs, training)

    def training_arguments(self) -> dict[str, Any]:
        unused = {"ddp_find_unused_parameters": True} if self.adapters_per_task else {}  # a step trains one task's
        return {"predict_with_generate": True, "generation_max_length": self.max_target_length, **unused}

    def load_data(self, arguments: Seq2SeqTrainingArguments) -> TasksData:
        return load_text_data(self, arguments)

    def load_file(self, path: Path, task: str | None, arguments: Seq2SeqTrainingArguments) -> TasksData:
        spec, splits = rows_to_predict(self, path, task)
        tokenizer = load_tokenizer(self.model_location)
        return TasksData({spec.name: TextTaskData(spec, splits, encode(self, spec, splits, tokenizer))}, tokenizer)

    def load_model(self, random: bool = False) -> nn.Module:
        return load_backbone(self.model_location, self.dtype, random)

    def make_trainer(self, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()) -> TextTrainer:
        return make_trainer(prepared, self.task_names if self.adapters_per_task else (), callbacks)

    def evaluate(self, prepared: Prepared, trainer: TextTrainer, split: str) -> Evaluation:
        return trainer.score(split)

    def samples(self, prepared: Prepared) -> Mapping[str, Dataset]:
        return prepared.data.samples()

    def table_rows(self, result: Mapping[str, Any]) -> list[list[str]]:
        """The shares of answers that are not labels and of targets that cannot be written, if there are any."""
        rows = []
        shares = {"invalid": "answers that are not labels", "unwritable": "targets that the tokenizer cannot write"}
        for split, metrics in result["metrics"].items():
            for name, value in metrics.items():
                task, _, flag = name.rpartition("/")
                if flag in shares and value:
                    rows.append([" ".join(filter(None, (split, task, shares[flag]))), f"{value:.2%}"])
        return rows

    def baselines(self) -> Mapping[str, Baseline]:
        free_text = (spec.name for spec in self.specs if spec.labels is None and not spec.is_number)
        return task_baselines(next(free_text, None))
