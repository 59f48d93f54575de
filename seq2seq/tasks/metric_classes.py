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
from functools import partial
from typing import Any, Literal

import evaluate
import numpy as np
from datasets import Features, List, Value
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

INVALID = -1
"""The class index of a text that is not a label."""

Answer = Literal["class", "number", "text"]
"""What a metric compares: class indices, numbers (NaN for what is none), or texts with all accepted answers."""

_FEATURES: dict[Answer, Features] = {
    "class": Features({"predictions": Value("int64"), "references": Value("int64")}),
    "number": Features({"predictions": Value("float64"), "references": Value("float64")}),
    "text": Features({"predictions": Value("string"), "references": List(Value("string"))}),
}


class _TaskMetric(evaluate.Metric):
    """Base of all metrics, computed in memory.

    `compares` says what predictions and references are; `needs_groups` that there is a column `groups` too, with the
    question of each row; `is_binary` that class 1 is the positive one of two.
    """

    compares: Answer
    needs_groups = False
    is_binary = False

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        groups = {"groups": Value("string")} if self.needs_groups else {}
        features = Features({**_FEATURES[self.compares], **groups})
        return evaluate.MetricInfo(
            description=self.__doc__, citation="", inputs_description="", features=features, format=None
        )


class Accuracy(_TaskMetric):
    """Share of correct classes."""

    compares = "class"

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": accuracy_score(references, predictions)}


class F1(_TaskMetric):
    """Binary F1 of class 1."""

    compares = "class"
    is_binary = True

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"f1": f1_score(references, _other_class_if_invalid(predictions, references), zero_division=0.0)}


class MacroF1(_TaskMetric):
    """Mean of the F1 per class, over the classes that occur in the predictions or the references."""

    compares = "class"

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        classes = sorted({*predictions, *references} - {INVALID})
        return {"macro_f1": f1_score(references, predictions, labels=classes, average="macro", zero_division=0.0)}


class Matthews(_TaskMetric):
    """Matthews correlation coefficient; its multi-class form if some texts are not labels."""

    compares = "class"

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"matthews": 0.0 if _is_constant(predictions) else matthews_corrcoef(references, predictions)}


class Pearson(_TaskMetric):
    """Pearson correlation of the valid scores, times their share."""

    compares = "number"

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"pearson": _correlation(pearsonr, predictions, references)}


class Spearman(_TaskMetric):
    """Spearman rank correlation of the valid scores, times their share."""

    compares = "number"

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"spearman": _correlation(spearmanr, predictions, references)}


class F1OverAnswers(_TaskMetric):
    """MultiRC's F1a: the F1 of class 1 over all answers of all questions (Khashabi et al. 2018)."""

    compares = "class"
    is_binary = True

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"f1a": f1_score(references, _other_class_if_invalid(predictions, references), zero_division=0.0)}


class QuestionExactMatch(_TaskMetric):
    """MultiRC's EM: share of the questions for which all answers are classified correctly."""

    compares = "class"
    needs_groups = True

    def _compute(self, predictions: list[int], references: list[int], groups: list[str]) -> dict[str, float]:
        correct: dict[str, bool] = defaultdict(lambda: True)
        for prediction, reference, group in zip(predictions, references, groups, strict=True):
            correct[group] = correct[group] and prediction == reference
        return {"question_exact_match": float(np.mean(list(correct.values())))}


class ExactMatch(_TaskMetric):
    """Share of the texts that equal an accepted answer, up to leading and trailing space."""

    compares = "text"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"exact_match": _mean_of_best(_equal, str.strip, predictions, references)}


class SquadExactMatch(_TaskMetric):
    """Share of the texts that equal an accepted answer, up to case, punctuation and articles."""

    compares = "text"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"squad_exact_match": _mean_of_best(_equal, normalize_answer, predictions, references)}


class SquadF1(_TaskMetric):
    """Mean word-level F1 between a text and its best accepted answer."""

    compares = "text"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"squad_f1": _mean_of_best(_word_f1, normalize_answer, predictions, references)}


class Rouge1(_TaskMetric):
    """Mean ROUGE-1: F1 of the words shared with the best accepted answer (Lin 2004), without stemming."""

    compares = "text"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"rouge1": _mean_of_best(partial(_ngram_f1, n=1), words_of, predictions, references)}


class Rouge2(_TaskMetric):
    """Mean ROUGE-2: F1 of the word pairs shared with the best accepted answer, without stemming."""

    compares = "text"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"rouge2": _mean_of_best(partial(_ngram_f1, n=2), words_of, predictions, references)}


class RougeL(_TaskMetric):
    """Mean ROUGE-L: F1 of the longest common subsequence of words with the best accepted answer, without stemming."""

    compares = "text"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"rougeL": _mean_of_best(_subsequence_f1, words_of, predictions, references)}


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
    "rouge1": Rouge1,
    "rouge2": Rouge2,
    "rougeL": RougeL,
}


def normalize_answer(text: str) -> str:
    """Lower-case a text and drop punctuation, the articles a, an, the, and extra space (Rajpurkar et al. 2016)."""
    letters = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", letters).split())


def words_of(text: str) -> list[str]:
    """The words of ROUGE: runs of letters and digits in lower case, of any script."""
    return re.findall(r"[^\W_]+", text.lower())


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
    agreement: Callable[[Any, Any], float],
    normalize: Callable[[str], Any],
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
    return _ngram_f1(prediction.split(), answer.split(), n=1)


def _ngram_f1(prediction: list[str], answer: list[str], n: int) -> float:
    predicted, expected = (Counter(zip(*(words[k:] for k in range(n)), strict=False)) for words in (prediction, answer))
    return _f1(prediction, answer, (predicted & expected).total(), predicted.total(), expected.total())


def _subsequence_f1(prediction: list[str], answer: list[str]) -> float:
    longest = [0] * (len(answer) + 1)  # of the words of the prediction so far, and the first k words of the answer
    for word in prediction:
        before = longest.copy()
        for k, other in enumerate(answer, 1):
            longest[k] = before[k - 1] + 1 if word == other else max(before[k], longest[k - 1])
    return _f1(prediction, answer, longest[-1], len(prediction), len(answer))


def _f1(prediction: list[str], answer: list[str], shared: int, predicted: int, expected: int) -> float:
    """The F1 of counts; where one of the texts has nothing to count, whether they are equal."""
    return 2 * shared / (predicted + expected) if predicted and expected else float(prediction == answer)
