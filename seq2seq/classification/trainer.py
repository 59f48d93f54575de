"""The trainer of a classification run: each task is scored by its own metrics of the predicted labels or numbers."""

from collections.abc import Sequence

import numpy as np
from datasets import concatenate_datasets
from transformers import DataCollatorWithPadding, TrainerCallback

from adapters import ConfigurationError
from seq2seq.classification.data import LabelledTaskData
from seq2seq.classification.keys import ClassificationKeys
from seq2seq.tasks.loading import TasksData
from seq2seq.tasks.scoring import TaskScoringMixin
from seq2seq.workload import Prepared
from third_party.trainers import ClassificationTrainer

NOT_FINITE = "not finite"
"""The answer of a model whose outputs are not finite: no label, and no number."""


class ScoringClassificationTrainer(TaskScoringMixin, ClassificationTrainer):
    """Scores labels or numbers."""

    flags = ClassificationKeys.flags

    def answers_of(self, task: LabelledTaskData, predictions: np.ndarray) -> list[str]:
        """The likeliest of the task's own labels, or the number, of each row's logits (rows, outputs)."""
        finite = np.isfinite(predictions).all(axis=1)
        if not task.outputs:
            return [str(value) if ok else NOT_FINITE for value, ok in zip(predictions[:, 0], finite, strict=True)]
        labels = list(task.outputs)
        likeliest = predictions[:, list(task.outputs.values())].argmax(axis=1)  # (rows, labels) -> (rows,)
        return [labels[index] if ok else NOT_FINITE for index, ok in zip(likeliest, finite, strict=True)]


def check_ends(data: TasksData) -> None:
    """Refuse rows whose ends an encoder-decoder cannot tell: it reads the last one, if all rows have equally many.

    Raises:
        ConfigurationError: two rows have unequal numbers of end-of-sequence tokens.
    """
    end, found = data.tokenizer.eos_token_id, {}
    for name, task in data.tasks.items():
        for split, rows in task.encoded.items():
            for ids in rows["input_ids"]:
                found.setdefault(ids.count(end), f"{name}, split {split}")
    if len(found) > 1:
        (few, one), (many, other) = sorted(found.items())[:2]
        raise ConfigurationError(
            "An encoder-decoder classifies rows that have equally many end-of-sequence tokens, as single texts or as "
            f"pairs; got {few} in {one} and {many} in {other}: keep single texts and pairs in separate runs, and "
            f"{data.tokenizer.eos_token!r} out of the texts."
        )


def make_trainer(
    prepared: Prepared, task_names: Sequence[str], callbacks: Sequence[TrainerCallback] = ()
) -> ScoringClassificationTrainer:
    """The trainer on the training rows of all tasks; ``task_names`` are those that have their own adapters."""
    data: TasksData = prepared.data
    if prepared.model.config.is_encoder_decoder:
        check_ends(data)
    encoded = {name: task.encoded for name, task in data.tasks.items()}
    validation = {name: splits["validation"] for name, splits in encoded.items() if "validation" in splits}
    train = [splits["train"] for splits in encoded.values() if "train" in splits]
    return ScoringClassificationTrainer(
        data,
        model=prepared.model,
        args=prepared.arguments,
        train_dataset=concatenate_datasets(train) if train else None,
        eval_dataset=validation or None,
        data_collator=DataCollatorWithPadding(data.tokenizer),
        processing_class=data.tokenizer,
        task_names=task_names,
        train_sampler=data.train_sampler,
        callbacks=list(callbacks),
    )
