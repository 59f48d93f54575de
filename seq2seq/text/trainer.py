"""The trainer of a text run: each task is scored by its own metrics of generated texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import concatenate_datasets
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase, TrainerCallback

import adapters
from seq2seq.tasks.metrics import average_over_tasks, split_metrics
from seq2seq.text.data import TextData
from seq2seq.text.keys import TextKeys
from seq2seq.workload import Evaluation, Prepared
from third_party.trainers import Seq2SeqTrainer


class TextTrainer(Seq2SeqTrainer):
    """Scores generated texts; the mean over tasks chooses the best checkpoint."""

    flags = TextKeys.flags

    def __init__(self, data: TextData, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data

    def answer(self, split: str) -> tuple[dict[str, dict[str, float]], dict[str, list[str]]]:
        """Each task's metrics on a split, with its loss, and each task's generated texts."""
        metrics, texts = {}, {}
        for name, task in self.data.tasks.items():
            if self.task_names and adapters.attachments(self.model):
                adapters.set_active_task(self.model, name)  # before the merge, so that it merges this task's adapters
            output = self.predict(task.encoded[split])
            texts[name] = decode(self.data.tokenizer, output.predictions)
            metrics[name] = split_metrics(task.spec, texts[name], task.splits[split])
            metrics[name]["loss"] = output.metrics["test_loss"]
        return metrics, texts

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics on the validation split, as transformers expects them: logged, and named eval_..."""
        by_task, _ = self.answer("validation")
        metrics = {f"eval_{name}": value for name, value in average_over_tasks(by_task).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def score(self, split: str) -> Evaluation:
        """Metrics of the generated texts of a split, without the loss; source, target and prediction of each row."""
        metrics, texts = self.answer(split)
        for values in metrics.values():
            del values["loss"]
        return Evaluation(average_over_tasks(metrics), {name: self._rows(name, split, texts[name]) for name in texts})

    def _rows(self, name: str, split: str, texts: list[str]) -> list[dict[str, str]]:
        rows = self.data.tasks[name].splits[split]
        return [
            {"source": source, "target": target, "prediction": text}
            for source, target, text in zip(rows["source"], rows["target"], texts, strict=True)
        ]


def make_trainer(prepared: Prepared, per_task: bool, callbacks: Sequence[TrainerCallback] = ()) -> TextTrainer:
    """The trainer on the training rows of all tasks; ``per_task`` if each task has its own adapters."""
    data: TextData = prepared.data
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
        task_names=tuple(data.tasks) if per_task else (),
        train_sampler=data.train_sampler,
        callbacks=list(callbacks),
    )


def decode(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> list[str]:
    """Texts of generated token ids (rows, length), padded with -100."""
    return tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)
