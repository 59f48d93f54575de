r"""Metrics of ranked words, their standard errors, and paired differences of two decoders.

    scores(rows)                      {"swipe_mrr": .61, "mrr": .64, "accuracy_1": .58, ...}
    standard_errors(rows)             the same keys
    paired_differences(rows, other)   the same keys, each with a confidence interval

Every metric is a ratio of two sums over the rows, :math:`r = \sum_i v_i / \sum_i w_i`: of its values :math:`v` and
their weights :math:`w`, which are the word's letters for the character error rate and 1 for all others. So one formula
gives all standard errors, that of a ratio estimator,

.. math:: s = \frac{1}{\sum_i w_i} \sqrt{\frac{n}{n - 1} \sum_i (v_i - r w_i)^2},

and one bootstrap all confidence intervals: it draws rows, with replacement, the same rows for both decoders.

| metric | of a row |
|---|---|
| ``swipe_mrr`` | 1, .1, .09, .08 if the word is the first, second, third, fourth candidate, else 0 (Yandex Cup 2023) |
| ``mrr`` | the reciprocal of the word's rank, 0 if it is no candidate |
| ``accuracy_<n>`` | 1 if the word is among the first n candidates |
| ``character_error_rate`` | edit distance of the first candidate to the word, by the word's letters |
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adapters import ConfigurationError

YANDEX_WEIGHTS = (1.0, 0.1, 0.09, 0.08)
"""What a word at each rank is worth to ``swipe_mrr``: a keyboard shows four, and types the first."""

RANKS = (1, 3, 4)
"""The n of ``accuracy_<n>``."""

ERROR_METRICS = ("character_error_rate",)
"""Metrics of which less is better."""

Row = Mapping[str, Any]
"""A prediction: {"index", "word", "layout", "candidates": [[word, log-probability], ...]}, the best candidate first."""


class Difference(NamedTuple):
    """How much larger a metric is than that of other predictions of the same rows.

    Args:
        low, high: the confidence interval.
    """

    value: float
    low: float
    high: float


def scores(rows: Sequence[Row]) -> dict[str, float]:
    """The metrics of predictions; if they are of several layouts, also ``accuracy_1/<layout>``.

    Raises:
        ConfigurationError: there are no rows, or one is malformed (``check_rows``).
    """
    return {name: float(value.sum() / weight.sum()) for name, (value, weight) in _terms(rows).items()}


def standard_errors(rows: Sequence[Row]) -> dict[str, float]:
    """The standard error of each of ``scores``; NaN for a metric of a single row."""
    return {name: _standard_error(value, weight) for name, (value, weight) in _terms(rows).items()}


def paired_differences(
    rows: Sequence[Row], other: Sequence[Row], samples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """By how much the metrics of ``rows`` exceed those of ``other``, with intervals of a paired bootstrap.

    Args:
        rows, other: predictions of the same rows, in any order.
        samples: how often rows are drawn.
        confidence: the intervals' level; their ends are percentiles.
        seed: of the draws.

    Raises:
        ConfigurationError: the predictions are not of the same rows.
    """
    first, second = map(_terms, paired([rows, other]))
    probabilities = np.full(len(rows), 1 / len(rows))
    counts = np.random.default_rng(seed).multinomial(len(rows), probabilities, samples).astype(float)
    ends = np.array([1 - confidence, 1 + confidence]) / 2
    differences = {}
    for name, (value, weight) in first.items():
        drawn = counts @ weight  # (samples, rows) x (rows,)
        with np.errstate(invalid="ignore"):  # a draw without any row of a layout
            resampled = counts @ (value - second[name][0]) / drawn
        low, high = np.nanquantile(resampled, ends)
        differences[name] = Difference(float((value - second[name][0]).sum() / weight.sum()), float(low), float(high))
    return differences


def paired(tables: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """Tables of predictions, each sorted by index.

    Raises:
        ConfigurationError: they are not of the same rows: index, word or layout differ.
    """
    ordered = [sorted(table, key=lambda row: row["index"]) for table in tables]
    for table in ordered[1:]:
        for row, other in zip(ordered[0], table, strict=False):
            if any(row[key] != other[key] for key in ("index", "word", "layout")):
                raise ConfigurationError(_unpaired(_identity(row), _identity(other)))
        if len(ordered[0]) != len(table):
            raise ConfigurationError(_unpaired(f"{len(ordered[0])} rows", str(len(table))))
    return ordered


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows without a word, twice the same row, and candidates that are not a ranking.

    Raises:
        ConfigurationError: names the first such row.
    """
    if not rows:
        raise ConfigurationError("Metrics need at least one prediction; got none: predict a split first.")
    seen = set()
    for row in rows:
        problem = _problem(row, seen)
        if problem:
            raise ConfigurationError(f"A prediction {problem[0]}; got {problem[1]} at index {row.get('index')}: {FIX}")
        seen.add(row["index"])


FIX = "write {'index', 'word', 'layout', 'candidates': [[word, log-probability], ...]}, the best candidate first."


def _problem(row: Row, seen: set[int]) -> tuple[str, str] | None:
    """The rule that a row breaks, and what it has instead."""
    missing = [key for key in ("index", "word", "layout", "candidates") if key not in row]
    if missing:
        return "has the keys index, word, layout and candidates", f"no {missing[0]}"
    if row["index"] in seen:
        return "has the index of its row in the original data set, once", "the same index twice"
    if not row["word"]:
        return "has the word that was swiped", repr(row["word"])
    words = [word for word, _ in row["candidates"]]
    if len(set(words)) < len(words):
        return "has distinct candidates", repr(words)
    values = np.array([value for _, value in row["candidates"]], float)
    if not np.isfinite(values).all():
        return "has candidates with finite log-probabilities", repr(values.tolist())
    if (np.diff(values) > 0).any():
        return "has the best candidate first", repr(values.tolist())
    return None


def edit_distance(word: str, other: str) -> int:
    """The least number of letters to insert, delete or substitute (Levenshtein)."""
    letters = np.array([*other])
    columns = np.arange(len(other) + 1)
    distances = columns  # to the prefixes of ``other``, of the prefix of ``word`` read so far
    for letter in word:
        distances = distances + 1  # delete the letter
        distances[1:] = np.minimum(distances[1:], distances[:-1] - 1 + (letters != letter))
        distances = np.minimum.accumulate(distances - columns) + columns  # insert letters of ``other``
    return int(distances[-1])


def _terms(rows: Sequence[Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values and weights of each metric by row, each (rows,) float64."""
    check_rows(rows)
    ranks = np.array([_rank(row) for row in rows])
    ones = np.ones(len(rows))
    worth = np.zeros(int(max(ranks.max(), len(YANDEX_WEIGHTS))) + 1)
    worth[1 : len(YANDEX_WEIGHTS) + 1] = YANDEX_WEIGHTS
    values = {"swipe_mrr": worth[ranks], "mrr": np.divide(1, ranks, where=ranks > 0, out=np.zeros(len(rows)))}
    values |= {f"accuracy_{n}": ((ranks > 0) & (ranks <= n)).astype(float) for n in RANKS}
    terms = {name: (value, ones) for name, value in values.items()}
    firsts = [row["candidates"][0][0] if row["candidates"] else "" for row in rows]
    errors = np.array([edit_distance(first, row["word"]) for first, row in zip(firsts, rows, strict=True)], float)
    terms["character_error_rate"] = errors, np.array([len(row["word"]) for row in rows], float)
    layouts = np.array([row["layout"] for row in rows])
    for layout in np.unique(layouts) if len(set(layouts)) > 1 else ():
        among = (layouts == layout).astype(float)
        terms[f"accuracy_1/{layout}"] = values["accuracy_1"] * among, among
    return terms


def _rank(row: Row) -> int:
    """The place of the word among the candidates, from 1; 0 if it is none of them."""
    return next((place for place, (word, _) in enumerate(row["candidates"], 1) if word == row["word"]), 0)


def _standard_error(value: np.ndarray, weight: np.ndarray) -> float:
    among = weight > 0
    count, total = int(among.sum()), weight.sum()
    if count < 2:
        return float("nan")
    residuals = (value - value.sum() / total * weight)[among]
    return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / total)


def _identity(row: Row) -> str:
    return f"row {row['index']}, {row['word']!r} on {row['layout']}"


def _unpaired(given: str, other: str) -> str:
    return f"Predictions can be paired if they are of the same rows; got {given} and {other}: predict the same split."
