"""What metrics are called in tables and plots: ``metric_name`` one by one, ``mean_name`` for their mean."""

from collections.abc import Iterable

METRIC_NAMES = {
    "average_metrics": "mean",
    "bits_per_byte": "bits per byte",
    "f1": "F1",
    "f1a": "F1 over answers",
    "log_likelihood": "log-likelihood per token",
    "macro_f1": "macro F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "squad_f1": "SQuAD F1",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}
"""Metrics whose names are more than their keys without underscores."""


def metric_name(key: str) -> str:
    """The name of a metric; that of a task in a mixture, <task>/<metric>, is "<task> <metric>"."""
    task, slash, metric = key.rpartition("/")
    return f"{task}{slash and ' '}{METRIC_NAMES.get(metric, metric.replace('_', ' '))}"


def mean_name(keys: Iterable[str]) -> str:
    """The name of a task's result: of its metric, or of the mean of several; "metric" if they are not known."""
    names = [metric_name(key) for key in keys]
    if len(names) < 2:
        return names[0] if names else "metric"
    return f"mean of {', '.join(names[:-1])} and {names[-1]}"
