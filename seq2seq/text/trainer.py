"""The trainer of a text run: each task is scored by its own metrics of generated texts."""

from collections.abc import Sequence
from typing import Any

from datasets import concatenate_datasets
from transformers import DataCollatorForSeq2Seq, TrainerCallback

import adapters
from seq2seq.tasks.metrics import average_over_tasks, split_metrics
from seq2seq.text.data import TextData
from seq2seq.text.encoding import decode
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
            metrics[name] = split_metrics(task.spec, texts[name], task.splits[split]) if task.spec.metrics else {}
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
        for name, values in metrics.items():
            del values["loss"]
            values |= self._unwritable(name, split)
        average = average_over_tasks(metrics) if all(metrics.values()) else {}
        return Evaluation(average, {name: self._rows(name, split, texts[name]) for name in texts})

    def _unwritable(self, name: str, split: str) -> dict[str, float]:
        """The share of a split's targets that the tokenizer cannot write, if there are any."""
        task = self.data.tasks[name]
        targets = task.splits[split]["target"][:]
        count = sum(target in task.unwritable for target in targets)
        return {"unwritable": count / len(targets)} if count else {}

    def _rows(self, name: str, split: str, texts: list[str]) -> list[dict[str, str]]:
        task = self.data.tasks[name]
        columns = ["source", "target"] if task.spec.metrics else ["source"]  # without targets there are no metrics
        rows = task.splits[split].select_columns(columns)
        return [{**row, "prediction": text} for row, text in zip(rows, texts, strict=True)]


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
