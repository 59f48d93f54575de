"""Compute the metrics of generated texts: of a task, of a split, and averaged over the tasks of a run.

The metrics themselves are in `seq2seq.tasks.metric_classes`. Besides them, `compute_metrics` reports the share of texts
that are not a label as `invalid` and flags constant predictions as `constant_predictions` = 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset

from seq2seq.tasks.metric_classes import INVALID, METRICS
from seq2seq.tasks.task_spec import TaskSpec


def compute_metrics(
    spec: TaskSpec,
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """Compute a task's metrics of n generated texts.

    Args:
        spec: the task.
        predictions: n generated texts.
        references: n target texts, or n lists of accepted answers (the column `answers` if the data have one).
        groups: n names of questions (the column `group`), for tasks that have them.

    Returns:
        One entry per metric of the task, `average_metrics` (their mean), `constant_predictions` (1 if all predictions
        are equal, else 0) and, for tasks with labels, `invalid` (the share of texts that are not a label).

    Raises:
        ValueError: no texts, unequal lengths, missing groups, or a reference that is not a label.
    """
    _check_lengths(predictions, references, groups)
    parsed = [spec.parse(text) for text in predictions]
    columns = {"predictions": parsed, "references": references, "groups": groups}
    if spec.labels is None:
        columns["references"] = [[answers] if isinstance(answers, str) else list(answers) for answers in references]
    else:
        invalid = float("nan") if spec.is_similarity else INVALID
        columns["predictions"] = [invalid if prediction is None else prediction for prediction in parsed]
        columns["references"] = [_parse_reference(spec, text) for text in references]

    results: dict[str, float] = {}
    for name in spec.metrics:
        metric = METRICS[name]()
        if "groups" in metric.inputs and groups is None:
            raise ValueError(f"Metric {name!r} is computed per question; got no groups: pass the column 'group'.")
        results |= metric.compute(**{column: columns[column] for column in metric.inputs})
    results["average_metrics"] = float(np.mean(list(results.values())))
    results["constant_predictions"] = float(len(set(parsed)) == 1)
    if spec.labels is not None:
        results["invalid"] = parsed.count(None) / len(parsed)
    return results


def average_over_tasks(by_task: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Combine the metrics of a run's tasks.

    The metrics of a single task are returned as they are. Those of several tasks are named "<task>/<metric>", and
    `average_metrics` and, if present, `loss` are averaged over the tasks.
    """
    if len(by_task) == 1:
        return dict(next(iter(by_task.values())))
    results = {f"{task}/{name}": value for task, metrics in by_task.items() for name, value in metrics.items()}
    for name in ("average_metrics", "loss"):
        values = [metrics[name] for metrics in by_task.values() if name in metrics]
        if values:
            results[name] = float(np.mean(values))
    return results


def split_metrics(spec: TaskSpec, predictions: Sequence[str], split: Dataset) -> dict[str, float]:
    """Compute a task's metrics against a split: its column `answers` if it has one, else `target`."""
    columns = split.column_names
    references = split["answers" if "answers" in columns else "target"][:]
    return compute_metrics(spec, predictions, references, split["group"][:] if "group" in columns else None)


def _check_lengths(predictions: Sequence, references: Sequence, groups: Sequence | None) -> None:
    lengths = {"predictions": len(predictions), "references": len(references)}
    if groups is not None:
        lengths["groups"] = len(groups)
    if len(set(lengths.values())) > 1 or lengths["predictions"] == 0:
        given = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"Metrics compare equal numbers of texts, at least one; got {given}: pass whole splits.")


def _parse_reference(spec: TaskSpec, text: str) -> int | float | str:
    parsed = spec.parse(text)
    if parsed is None:
        raise ValueError(
            f"References of task {spec.name!r} are among its labels {', '.join(spec.labels)}; got {text!r}: "
            "use the column 'target' of load_splits."
        )
    return parsed
