"""The trainer of a run, and what is asked of a trained model: answers, metrics, the difference that merging makes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import concatenate_datasets
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase, Seq2SeqTrainingArguments

import adapters
from adapters.merging import non_linear_adapters
from seq2seq.tasks.metrics import average_over_tasks, split_metrics
from seq2seq.text.preparation import Prepared
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.trainers import RankScheduleCallback, Seq2SeqTrainer


class TaskTrainer(Seq2SeqTrainer):
    """Evaluates each task of a run by its own metrics of generated texts; their mean chooses the best checkpoint."""

    def __init__(self, prepared: Prepared, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prepared = prepared

    def answer(self, split: str) -> tuple[dict[str, dict[str, float]], dict[str, list[str]]]:
        """Each task's metrics on a split, its loss among them, and each task's generated texts."""
        metrics, texts = {}, {}
        for name, task in self.prepared.tasks.items():
            if self.task_names and adapters.attachments(self.model):
                adapters.set_active_task(self.model, name)  # so that what is merged first is right
            output = self.predict(task.encoded[split])
            texts[name] = decode(self.prepared.tokenizer, output.predictions)
            metrics[name] = split_metrics(task.spec, texts[name], task.splits[split])
            metrics[name]["loss"] = output.metrics["test_loss"]
        return metrics, texts

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics on the validation split, as transformers wants them: logged, and named eval_..."""
        by_task, _ = self.answer("validation")
        metrics = {f"eval_{name}": value for name, value in average_over_tasks(by_task).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def make_trainer(
    prepared: Prepared,
    model: T5ForConditionalGeneration,
    arguments: Seq2SeqTrainingArguments,
    rank_history: Path | None = None,
) -> TaskTrainer:
    """The trainer of ``model`` on the training rows of all tasks; where ranks change, a file has their history."""
    schedule = prepared.experiment.run.rank_schedule
    encoded = {name: task.encoded for name, task in prepared.tasks.items()}
    validation = {name: splits["validation"] for name, splits in encoded.items() if "validation" in splits}
    train = [splits["train"] for splits in encoded.values() if "train" in splits]
    return TaskTrainer(
        prepared,
        model=model,
        args=arguments,
        train_dataset=concatenate_datasets(train) if train else None,
        eval_dataset=validation or None,
        data_collator=DataCollatorForSeq2Seq(prepared.tokenizer, model=model),
        processing_class=prepared.tokenizer,
        task_names=tuple(prepared.tasks) if prepared.experiment.run.adapters_per_task else (),
        train_sampler=prepared.train_sampler,
        callbacks=None if schedule is None else [RankScheduleCallback(schedule, rank_history)],
    )


def predict(prepared: Prepared, trainer: TaskTrainer, split: str) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Metrics of the generated texts of a split, and the texts of each task."""
    metrics, texts = trainer.answer(split)
    for values in metrics.values():
        del values["loss"]
    return average_over_tasks(metrics), texts


def decode(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> list[str]:
    """Texts of generated ids (rows, length), in which -100 is padding."""
    return tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)


def merge_difference(prepared: Prepared, trainer: TaskTrainer) -> float | None:
    """Largest difference of merged and unmerged logits over the largest logit; None if not linear.

    Of one batch for each task; the largest one counts.
    """
    model = prepared.model
    if non_linear_adapters(model):
        return None
    differences = []
    for task in prepared.tasks.values():
        split = next(name for name in ("validation", "test", "train") if name in task.encoded)
        rows = task.encoded[split].select(range(min(8, len(task.encoded[split]))))
        batch = trainer.act_on_task(trainer.data_collator(list(rows)).to(model.device))
        model.eval()
        with torch.no_grad():
            unmerged = model(**batch).logits.float()
            with adapters.merged(model):
                merged = model(**batch).logits.float()
        differences.append(float((merged - unmerged).abs().max() / unmerged.abs().max()))
    return max(differences)
