"""The metrics: what generated texts are worth against the texts that should have come.

Each metric is a small class behind `evaluate.Metric`, computed in process on scikit-learn and scipy, so that nothing is
fetched. All values are fractions: shares and F1 in [0, 1], correlations in [-1, 1].

Three things are defined here that are often left to chance:

- *Text that is none of the labels* is wrong. As a class it is -1, which no reference has; for the F1 of two classes it
  counts as the other class, so that it costs precision as well as recall; a correlation is taken over the texts that
  are labels and multiplied by their share. `compute_metrics` reports the share of such text as `invalid`.
- *Constant predictions or references* have no correlation: Matthews, Pearson and Spearman are 0, without a warning.
  `compute_metrics` flags constant predictions as `constant_predictions` = 1.
- *Several accepted answers* (SQuAD): the best one counts.
"""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import evaluate
import numpy as np
from datasets import Dataset, Features, List, Value
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from seq2seq.tasks.task_spec import TaskSpec

INVALID = -1
"""The class number of a text that is none of the labels."""

_CLASSES = Features({"predictions": Value("int64"), "references": Value("int64")})
_GROUPED_CLASSES = Features({**_CLASSES, "groups": Value("string")})
_SCORES = Features({"predictions": Value("float64"), "references": Value("float64")})  # NaN: none of the labels
_TEXTS = Features({"predictions": Value("string"), "references": List(Value("string"))})


class _TaskMetric(evaluate.Metric):
    """A metric with the columns `inputs`, held in memory."""

    inputs: Features

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__, citation="", inputs_description="", features=self.inputs, format=None
        )


class Accuracy(_TaskMetric):
    """Share of classes that are right."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": accuracy_score(references, predictions)}


class F1(_TaskMetric):
    """F1 of class 1 of two classes."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"f1": f1_score(references, _other_class_if_invalid(predictions, references), zero_division=0.0)}


class MacroF1(_TaskMetric):
    """Mean of the classes' F1, over the classes that occur in the predictions or the references."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        classes = sorted({*predictions, *references} - {INVALID})
        return {"macro_f1": f1_score(references, predictions, labels=classes, average="macro", zero_division=0.0)}


class Matthews(_TaskMetric):
    """Matthews' correlation coefficient, in its form for several classes where a text is none of the labels."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"matthews": 0.0 if _is_constant(predictions) else matthews_corrcoef(references, predictions)}


class Pearson(_TaskMetric):
    """Pearson's correlation of the valid scores, times their share."""

    inputs = _SCORES

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"pearson": _correlation(pearsonr, predictions, references)}


class Spearman(_TaskMetric):
    """Spearman's rank correlation of the valid scores, times their share."""

    inputs = _SCORES

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"spearman": _correlation(spearmanr, predictions, references)}


class F1OverAnswers(_TaskMetric):
    """MultiRC's F1a: the F1 of class 1 over all answers of all questions (Khashabi et al. 2018)."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"f1a": f1_score(references, _other_class_if_invalid(predictions, references), zero_division=0.0)}


class QuestionExactMatch(_TaskMetric):
    """MultiRC's EM: share of the questions (`groups`) of which all answers are judged rightly."""

    inputs = _GROUPED_CLASSES

    def _compute(self, predictions: list[int], references: list[int], groups: list[str]) -> dict[str, float]:
        right: dict[str, bool] = defaultdict(lambda: True)
        for prediction, reference, group in zip(predictions, references, groups, strict=True):
            right[group] = right[group] and prediction == reference
        return {"question_exact_match": float(np.mean(list(right.values())))}


class ExactMatch(_TaskMetric):
    """Share of the texts that equal an accepted answer, letter by letter but for space at the ends."""

    inputs = _TEXTS

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"exact_match": _mean_of_best(_equal, str.strip, predictions, references)}


class SquadExactMatch(_TaskMetric):
    """Share of the texts that equal an accepted answer but for case, punctuation and articles."""

    inputs = _TEXTS

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"squad_exact_match": _mean_of_best(_equal, normalize_answer, predictions, references)}


class SquadF1(_TaskMetric):
    """Mean F1 of the words that a text shares with its best accepted answer."""

    inputs = _TEXTS

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"squad_f1": _mean_of_best(_word_f1, normalize_answer, predictions, references)}


METRICS: dict[str, type[_TaskMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "macro_f1": MacroF1,
    "matthews": Matthews,
    "pearson": Pearson,
    "spearman": Spearman,
    "f1a": F1OverAnswers,
    "question_exact_match": QuestionExactMatch,
    "exact_match": ExactMatch,
    "squad_exact_match": SquadExactMatch,
    "squad_f1": SquadF1,
}


def compute_metrics(
    spec: TaskSpec,
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """The task's metrics of n generated texts.

    Args:
        predictions: n generated texts.
        references: n target texts, or n lists of accepted answers (the column `answers`, where the data have one).
        groups: n names of questions (the column `group`), for tasks that have them.

    Returns:
        One entry per metric of the task, `average_metrics` (their mean), `constant_predictions` (1 if all texts say the
        same, else 0) and, for tasks with labels, `invalid` (the share of texts that are none of them).

    Raises:
        ValueError: no texts, unequal lengths, groups missing, or a reference that is none of the labels.
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
            raise ValueError(f"Metric {name!r} counts by question; no groups were given. Give the column 'group'.")
        results |= metric.compute(**{column: columns[column] for column in metric.inputs})
    results["average_metrics"] = float(np.mean(list(results.values())))
    results["constant_predictions"] = float(len(set(parsed)) == 1)
    if spec.labels is not None:
        results["invalid"] = parsed.count(None) / len(parsed)
    return results


def average_over_tasks(by_task: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The metrics of a run from those of its tasks.

    Of one task they are the task's own. Of several they are each task's under "<task>/<metric>", and the means over the
    tasks of `average_metrics` and, where it is there, of `loss`.
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
    """`compute_metrics` against a split: its `answers` where it has them, else its `target`."""
    columns = split.column_names
    references = split["answers" if "answers" in columns else "target"][:]
    return compute_metrics(spec, predictions, references, split["group"][:] if "group" in columns else None)


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, the articles a, an, the, and superfluous space (Rajpurkar et al. 2016)."""
    letters = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", letters).split())


def _check_lengths(predictions: Sequence, references: Sequence, groups: Sequence | None) -> None:
    lengths = {"predictions": len(predictions), "references": len(references)}
    if groups is not None:
        lengths["groups"] = len(groups)
    if len(set(lengths.values())) > 1 or lengths["predictions"] == 0:
        given = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"Metrics compare equally many texts, at least one; {given} were given. Pass whole splits.")


def _parse_reference(spec: TaskSpec, text: str) -> int | float | str:
    parsed = spec.parse(text)
    if parsed is None:
        raise ValueError(
            f"References of task {spec.name!r} are among its labels {', '.join(spec.labels)}; {text!r} was given. "
            "Take them from the column 'target' that load_splits returns."
        )
    return parsed


def _other_class_if_invalid(predictions: list[int], references: list[int]) -> list[int]:
    return [1 - r if p == INVALID else p for p, r in zip(predictions, references, strict=True)]


def _is_constant(values: Sequence) -> bool:
    return len(set(values)) < 2


def _correlation(correlate: Callable, predictions: list[float], references: list[float]) -> float:
    valid = ~np.isnan(predictions)
    predicted, expected = np.asarray(predictions)[valid], np.asarray(references)[valid]
    if _is_constant(predicted) or _is_constant(expected):
        return 0.0
    return float(correlate(predicted, expected).statistic * valid.mean())


def _mean_of_best(
    agreement: Callable[[str, str], float],
    normalize: Callable[[str], str],
    predictions: list[str],
    references: list[list[str]],
) -> float:
    best = [
        max(agreement(normalize(prediction), normalize(answer)) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return float(np.mean(best))


def _equal(prediction: str, answer: str) -> float:
    return float(prediction == answer)


def _word_f1(prediction: str, answer: str) -> float:
    predicted, expected = prediction.split(), answer.split()
    if not predicted or not expected:
        return _equal(prediction, answer)
    shared = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * shared / (len(predicted) + len(expected))
