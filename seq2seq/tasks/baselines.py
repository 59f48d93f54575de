"""Baselines of tasks that need no neural network; each task has its own, made from its training rows."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from datasets import Dataset
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from seq2seq.tasks.metrics import average_over_tasks, split_metrics
from seq2seq.tasks.task_spec import TaskSpec, similarity_label
from seq2seq.workload import Baseline, Prepared


def task_baselines(free_text: str | None) -> Mapping[str, Baseline]:
    """The baselines of a run's tasks.

    Args:
        free_text: the name of one whose answers are neither labels nor numbers; None if there is none.
    """
    reason = None if free_text is None else f"a bag of words predicts labels, and {free_text!r} is free text"
    return {
        "majority": Baseline("always the most frequent answer", partial(by_task, measure=majority)),
        "bag_of_words": Baseline("bag of words, linear", partial(by_task, measure=bag_of_words), reason),
    }


def by_task(
    prepared: Prepared, split: str, measure: Callable[[Dataset, Dataset, TaskSpec], dict[str, float]]
) -> dict[str, float]:
    """The metrics of a baseline that knows one task, averaged over the tasks."""
    tasks = prepared.data.tasks
    return average_over_tasks(
        {name: measure(task.splits["train"], task.splits[split], task.spec) for name, task in tasks.items()}
    )


def majority(train: Dataset, test: Dataset, spec: TaskSpec) -> dict[str, float]:
    """The metrics on `test` of always giving the most frequent target of `train` (the first one among equals)."""
    answer = Counter(train["target"]).most_common(1)[0][0]
    return split_metrics(spec, [answer] * len(test), test)


def bag_of_words(train: Dataset, test: Dataset, spec: TaskSpec) -> dict[str, float]:
    """The metrics on `test` of a linear model on the counts of words and word pairs of `train`.

    Logistic regression for classes, ridge regression for scores.

    Raises:
        ValueError: the task's answers are free text.
    """
    if spec.labels is None and not spec.is_number:
        raise ValueError(
            f"A bag of words predicts one of a task's labels; got {spec.name!r}, which is free text: use the majority."
        )
    if len(set(train["target"])) == 1:
        return majority(train, test, spec)
    texts, new_texts = texts_of(train, spec), texts_of(test, spec)
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    if spec.is_similarity or spec.is_number:
        model = make_pipeline(words, Ridge()).fit(texts, [float(score) for score in train["target"]])
        scores = model.predict(new_texts)
        if spec.is_similarity:
            return split_metrics(spec, [similarity_label(score) for score in scores.clip(0.0, 5.0)], test)
        return split_metrics(spec, [str(score) for score in scores], test)
    model = make_pipeline(words, LogisticRegression(max_iter=1000)).fit(texts, train["target"][:])
    return split_metrics(spec, model.predict(new_texts).tolist(), test)


def texts_of(rows: Dataset, spec: TaskSpec) -> list[str]:
    """What a model reads of each row, as one text."""
    return [" ".join(parts) for parts in zip(*(rows[column] for column in spec.inputs), strict=True)]
