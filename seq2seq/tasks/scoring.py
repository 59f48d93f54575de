"""A trainer scores each task by the task's own metrics; the mean over tasks chooses the best checkpoint."""

from typing import Any, ClassVar

import adapters
from seq2seq.tasks.loading import TaskData, TasksData
from seq2seq.tasks.metrics import average_over_tasks, split_metrics
from seq2seq.workload import Evaluation


class TaskScoringMixin:
    """Mixin before a trainer of ``third_party.trainers`` with ``TaskAdaptersMixin``.

    Args:
        data: the tasks, whose encoded splits it predicts.
    """

    flags: ClassVar[tuple[str, ...]] = ()

    def __init__(self, data: TasksData, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data = data

    def answers_of(self, task: TaskData, predictions: Any) -> list[str]:
        """The model's predictions, as the trainer's ``predict`` has them, as answers of the task."""
        raise NotImplementedError

    def answers_and_loss(self, task: TaskData, split: str) -> tuple[list[str], float | None]:
        """The answers to a split's rows, and the loss of their targets if they have some."""
        output = self.predict(task.encoded[split])
        return self.answers_of(task, output.predictions), output.metrics.get("test_loss")

    def answer(self, split: str) -> tuple[dict[str, dict[str, float]], dict[str, list[str]]]:
        """Each task's metrics on a split, with its loss, and each task's answers."""
        metrics, answers = {}, {}
        for name, task in self.data.tasks.items():
            if self.task_names and adapters.attachments(self.model):
                adapters.set_active_task(self.model, name)  # before the merge, so that it merges this task's adapters
            answers[name], loss = self.answers_and_loss(task, split)
            metrics[name] = split_metrics(task.spec, answers[name], task.splits[split]) if task.spec.metrics else {}
            if loss is not None:
                metrics[name]["loss"] = loss
        return metrics, answers

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics on the validation split, as transformers expects them: logged, and named eval_..."""
        by_task, _ = self.answer("validation")
        metrics = {f"eval_{name}": value for name, value in average_over_tasks(by_task).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def score(self, split: str) -> Evaluation:
        """Metrics of the answers of a split, without the loss; what went in, target and prediction of each row."""
        metrics, answers = self.answer(split)
        for name, values in metrics.items():
            values.pop("loss", None)
            values |= self.flags_of(self.data.tasks[name], split)
        average = average_over_tasks(metrics) if all(metrics.values()) else {}
        return Evaluation(average, {name: self._rows(name, split, answers[name]) for name in answers})

    def flags_of(self, task: TaskData, split: str) -> dict[str, float]:
        """More flags of a task's split; by default none."""
        return {}

    def _rows(self, name: str, split: str, answers: list[str]) -> list[dict[str, str]]:
        task = self.data.tasks[name]
        inputs = [column for column in task.spec.inputs if any(task.splits[split][column])]
        columns = [*inputs, *(["target"] if task.spec.metrics else [])]  # without targets there are no metrics
        rows = task.splits[split].select_columns(columns)
        return [{**row, "prediction": answer} for row, answer in zip(rows, answers, strict=True)]
