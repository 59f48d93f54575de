"""Compute the metrics of generated texts: of a task, of a split, and averaged over the tasks of a run.

The metrics themselves are in `seq2seq.tasks.metric_classes`. Besides them, `compute_metrics` reports the share of texts
that are not a label as `invalid` and flags constant predictions as `constant_predictions` = 1.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset

from seq2seq.tasks.metric_classes import INVALID, METRICS
from seq2seq.tasks.task_spec import TaskSpec, number_of


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
        are equal, else 0) and, for tasks with labels or numbers, `invalid` (the share of texts that are none).

    Raises:
        ValueError: no texts, unequal lengths, missing groups, or a reference that is not a label.
    """
    _check_lengths(predictions, references, groups)
    parsed = [spec.parse(text) for text in predictions]
    views = {
        "class": lambda: (_classes(spec, predictions), _classes(spec, references)),
        "number": lambda: (_numbers(spec, predictions), _numbers(spec, references)),
        "text": lambda: ([text.strip() for text in predictions], _accepted(references)),
    }
    if spec.labels is not None or spec.is_number:
        _check_references(spec, references)
    results: dict[str, float] = {}
    for name in spec.metrics:
        metric = METRICS[name]()
        if metric.needs_groups and groups is None:
            raise ValueError(f"Metric {name!r} is computed per question; got no groups: pass the column 'group'.")
        predicted, expected = views[metric.compares]()
        columns = {"groups": groups} if metric.needs_groups else {}
        results |= metric.compute(predictions=predicted, references=expected, **columns)
    results["average_metrics"] = float(np.mean(list(results.values())))
    results["constant_predictions"] = float(len(set(parsed)) == 1)
    if spec.labels is not None or spec.is_number:
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


def _check_references(spec: TaskSpec, references: Sequence[str] | Sequence[Sequence[str]]) -> None:
    for answers in _accepted(references):
        for text in answers:
            if spec.parse(text) is None:
                allowed = f"among its labels {', '.join(spec.labels)}" if spec.labels else "numbers"
                raise ValueError(
                    f"References of task {spec.name!r} are {allowed}; got {text!r}: use the column 'target' of "
                    "load_splits."
                )


def _accepted(references: Sequence[str] | Sequence[Sequence[str]]) -> list[list[str]]:
    return [[answers] if isinstance(answers, str) else list(answers) for answers in references]


def _classes(spec: TaskSpec, texts: Sequence[str]) -> list[int]:
    return [spec.labels.index(text.strip()) if text.strip() in spec.labels else INVALID for text in texts]


def _numbers(spec: TaskSpec, texts: Sequence[str]) -> list[float]:
    """The numbers that texts spell; NaN for what is none, or is not one of the labels."""
    numbers = [None if spec.parse(text) is None else number_of(text) for text in texts]
    return [math.nan if number is None else number for number in numbers]
