"""The trainer of a text run: each task is scored by its own metrics of generated texts."""

from collections.abc import Sequence

import numpy as np
from datasets import concatenate_datasets
from transformers import DataCollatorForSeq2Seq, TrainerCallback

from seq2seq.tasks.loading import TasksData
from seq2seq.tasks.scoring import TaskScoringMixin
from seq2seq.text.data import TextTaskData
from seq2seq.text.encoding import decode
from seq2seq.text.keys import TextKeys
from seq2seq.workload import Prepared
from third_party.trainers import Seq2SeqTrainer


class TextTrainer(TaskScoringMixin, Seq2SeqTrainer):
    """Scores generated texts."""

    flags = TextKeys.flags

    def answers_of(self, task: TextTaskData, predictions: np.ndarray) -> list[str]:
        return decode(self.data.tokenizer, predictions)

    def flags_of(self, task: TextTaskData, split: str) -> dict[str, float]:
        """The share of a split's targets that the tokenizer cannot write, if there are any."""
        targets = task.splits[split]["target"][:]
        count = sum(target in task.unwritable for target in targets)
        return {"unwritable": count / len(targets)} if count else {}


def make_trainer(
    prepared: Prepared, task_names: Sequence[str], callbacks: Sequence[TrainerCallback] = ()
) -> TextTrainer:
    """The trainer on the training rows of all tasks; ``task_names`` are those that have their own adapters."""
    data: TasksData = prepared.data
    encoded = {name: task.encoded for name, task in data.tasks.items()}
    validation = {name: splits["validation"] for name, splits in encoded.items() if "validation" in splits}
    train = [splits["train"] for splits in encoded.values() if "train" in splits]
    return TextTrainer(
        data,
        model=prepared.model,
        args=prepared.arguments,
        train_dataset=concatenate_datasets(train) if train else None,
        eval_dataset=validation or None,
        data_collator=DataCollatorForSeq2Seq(data.tokenizer, model=prepared.model),
        processing_class=data.tokenizer,
        task_names=task_names,
        train_sampler=data.train_sampler,
        callbacks=list(callbacks),
    )
