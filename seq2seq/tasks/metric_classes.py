"""The individual metrics behind `evaluate.Metric`, and the registry `METRICS`; a new metric is one class and one entry.

All metrics are computed in process on scikit-learn and scipy; nothing is downloaded. Values are fractions: shares and
F1 in [0, 1], correlations in [-1, 1]. Three cases that are often left undefined:

- *A text that is not a label* is wrong. As a class it is -1, which no reference has; for binary F1 it counts as the
  other class, so that it costs precision as well as recall; a correlation is computed over the valid scores and
  multiplied by their share.
- *Constant predictions or references* have no correlation: Matthews, Pearson and Spearman are 0, without a warning.
- *Several accepted answers* (SQuAD): the best match counts.
"""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import evaluate
import numpy as np
from datasets import Features, List, Value
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

INVALID = -1
"""The class index of a text that is not a label."""

_CLASSES = Features({"predictions": Value("int64"), "references": Value("int64")})
_GROUPED_CLASSES = Features({**_CLASSES, "groups": Value("string")})
_SCORES = Features({"predictions": Value("float64"), "references": Value("float64")})  # NaN: not a label
_TEXTS = Features({"predictions": Value("string"), "references": List(Value("string"))})


class _TaskMetric(evaluate.Metric):
    """Base of all metrics: computed in memory from the columns `inputs`."""

    inputs: Features

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__, citation="", inputs_description="", features=self.inputs, format=None
        )


class Accuracy(_TaskMetric):
    """Share of correct classes."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": accuracy_score(references, predictions)}


class F1(_TaskMetric):
    """Binary F1 of class 1."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"f1": f1_score(references, _other_class_if_invalid(predictions, references), zero_division=0.0)}


class MacroF1(_TaskMetric):
    """Mean of the F1 per class, over the classes that occur in the predictions or the references."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        classes = sorted({*predictions, *references} - {INVALID})
        return {"macro_f1": f1_score(references, predictions, labels=classes, average="macro", zero_division=0.0)}


class Matthews(_TaskMetric):
    """Matthews correlation coefficient; its multi-class form if some texts are not labels."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"matthews": 0.0 if _is_constant(predictions) else matthews_corrcoef(references, predictions)}


class Pearson(_TaskMetric):
    """Pearson correlation of the valid scores, times their share."""

    inputs = _SCORES

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"pearson": _correlation(pearsonr, predictions, references)}


class Spearman(_TaskMetric):
    """Spearman rank correlation of the valid scores, times their share."""

    inputs = _SCORES

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"spearman": _correlation(spearmanr, predictions, references)}


class F1OverAnswers(_TaskMetric):
    """MultiRC's F1a: the F1 of class 1 over all answers of all questions (Khashabi et al. 2018)."""

    inputs = _CLASSES

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"f1a": f1_score(references, _other_class_if_invalid(predictions, references), zero_division=0.0)}


class QuestionExactMatch(_TaskMetric):
    """MultiRC's EM: share of the questions (`groups`) for which all answers are classified correctly."""

    inputs = _GROUPED_CLASSES

    def _compute(self, predictions: list[int], references: list[int], groups: list[str]) -> dict[str, float]:
        correct: dict[str, bool] = defaultdict(lambda: True)
        for prediction, reference, group in zip(predictions, references, groups, strict=True):
            correct[group] = correct[group] and prediction == reference
        return {"question_exact_match": float(np.mean(list(correct.values())))}


class ExactMatch(_TaskMetric):
    """Share of the texts that equal an accepted answer, up to leading and trailing space."""

    inputs = _TEXTS

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"exact_match": _mean_of_best(_equal, str.strip, predictions, references)}


class SquadExactMatch(_TaskMetric):
    """Share of the texts that equal an accepted answer, up to case, punctuation and articles."""

    inputs = _TEXTS

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"squad_exact_match": _mean_of_best(_equal, normalize_answer, predictions, references)}


class SquadF1(_TaskMetric):
    """Mean word-level F1 between a text and its best accepted answer."""

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


def normalize_answer(text: str) -> str:
    """Lower-case a text and drop punctuation, the articles a, an, the, and extra space (Rajpurkar et al. 2016)."""
    letters = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", letters).split())


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
