"""Metrics by hand, their bounds, and intervals against scipy's bootstrap."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import ConfigurationError
from seq2seq.swipe.metrics import check_rows, edit_distance, paired_differences, scores, standard_errors


def row_of(index: int, word: str, *candidates: str, layout: str = "qwerty") -> dict:
    return {
        "index": index,
        "word": word,
        "layout": layout,
        "candidates": [(candidate, -float(place)) for place, candidate in enumerate(candidates)],
    }


ROWS = [
    row_of(0, "hello", "hello", "hell"),  # first
    row_of(1, "world", "word", "world"),  # second; one letter is missing
    row_of(2, "tree", "the", "three", "free", "tree"),  # fourth; two edits
    row_of(3, "cat", "a", "b", "c", "d", "cat"),  # fifth: no credit of the Yandex Cup's; two edits
    row_of(4, "to"),  # nothing: two edits
]


def test_scores_by_hand():
    assert scores(ROWS) == pytest.approx(
        {
            "swipe_mrr": (1 + 0.1 + 0.08) / 5,
            "mrr": (1 + 1 / 2 + 1 / 4 + 1 / 5) / 5,
            "accuracy_1": 1 / 5,
            "accuracy_3": 2 / 5,
            "accuracy_4": 3 / 5,
            "character_error_rate": (0 + 1 + 2 + 2 + 2) / (5 + 5 + 4 + 3 + 2),
        }
    )


@pytest.mark.parametrize(
    ("place", "swipe", "plain"), [(0, 1, 1), (1, 0.1, 1 / 2), (2, 0.09, 1 / 3), (3, 0.08, 1 / 4), (4, 0, 1 / 5)]
)
def test_the_worth_of_each_rank(place, swipe, plain):
    candidates = ["a", "b", "c", "d", "e"]
    found = scores([row_of(0, candidates[place], *candidates)])
    assert (found["swipe_mrr"], found["mrr"]) == pytest.approx((swipe, plain))


def test_accuracy_by_layout_if_there_are_several():
    rows = [row_of(0, "a", "a"), row_of(1, "b", "a"), row_of(2, "b", "b", layout="dvorak")]
    found = scores(rows)
    assert (found["accuracy_1/qwerty"], found["accuracy_1/dvorak"]) == (0.5, 1.0)
    assert not any("/" in name for name in scores(rows[:2]))


def test_standard_errors_of_means_are_those_of_scipy():
    hits = np.array([1, 0, 0, 0, 0])
    assert standard_errors(ROWS)["accuracy_1"] == pytest.approx(scipy.stats.sem(hits))


def test_the_standard_error_of_a_ratio_is_that_of_the_jackknife_for_many_rows():
    random = np.random.default_rng(0)
    words = ["".join(random.choice([*"abc"], random.integers(2, 9))) for _ in range(400)]
    rows = [row_of(i, word, "".join(random.choice([*"abc"], len(word)))) for i, word in enumerate(words)]
    errors = np.array([edit_distance(row["candidates"][0][0], row["word"]) for row in rows])
    letters = np.array([len(word) for word in words])
    without = (errors.sum() - errors) / (letters.sum() - letters)  # each row left out
    jackknife = np.sqrt((len(rows) - 1) * without.var())
    assert standard_errors(rows)["character_error_rate"] == pytest.approx(jackknife, rel=0.02)


def test_a_single_row_has_no_standard_error():
    assert np.isnan([*standard_errors(ROWS[:1]).values()]).all()


def test_paired_intervals_are_those_of_scipys_bootstrap():
    random = np.random.default_rng(1)
    first, second = random.random((2, 300)) < np.array([[0.8], [0.7]])
    rows, other = ([row_of(i, "a", "a" if hit else "b") for i, hit in enumerate(hits)] for hits in (first, second))
    found = paired_differences(rows, other[::-1], samples=4000)["accuracy_1"]
    difference = (first.astype(float) - second,)
    expected = scipy.stats.bootstrap(difference, np.mean, n_resamples=4000, method="percentile", rng=random)
    assert found.value == pytest.approx(difference[0].mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.015)


def test_pairing_narrows_the_interval_of_equal_decoders_to_nothing():
    assert set(paired_differences(ROWS, ROWS).values()) == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("other", "given"),
    [
        (ROWS[:4], "5 rows and 4"),
        ([*ROWS[:4], row_of(4, "so")], "row 4, 'to' on qwerty and row 4, 'so' on qwerty"),
        ([*ROWS[:4], row_of(5, "to")], "row 4, 'to' on qwerty and row 5"),
        ([*ROWS[:4], row_of(4, "to", layout="dvorak")], "'to' on dvorak"),
    ],
)
def test_differences_of_other_rows_are_refused(other, given):
    with pytest.raises(ConfigurationError, match=f"same rows; got .*{given}"):
        paired_differences(ROWS, other)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"word": "a"}, "has the keys"),
        (row_of(0, ""), "has the word that was swiped"),
        (row_of(0, "a", "a", "b", "a"), "has distinct candidates"),
        (row_of(0, "a") | {"candidates": [("a", float("nan"))]}, "finite log-probabilities"),
        (row_of(0, "a") | {"candidates": [("a", float("-inf"))]}, "finite log-probabilities"),
        (row_of(0, "a") | {"candidates": [("a", -2.0), ("b", -1.0)]}, "the best candidate first"),
        (row_of(1, "a"), "once; got the same index twice"),
    ],
)
def test_malformed_rows_are_refused(row, rule):
    with pytest.raises(ConfigurationError, match=rule):
        scores([row_of(1, "b"), row])


def test_no_rows_are_refused():
    with pytest.raises(ConfigurationError, match="at least one prediction"):
        check_rows([])


def levenshtein(word: str, other: str) -> int:
    """By its recursion."""
    if not word or not other:
        return len(word) + len(other)
    substituted = levenshtein(word[:-1], other[:-1]) + (word[-1] != other[-1])
    return min(substituted, levenshtein(word[:-1], other) + 1, levenshtein(word, other[:-1]) + 1)


@given(*[st.text("abc", max_size=5)] * 2)
def test_the_edit_distance_is_that_of_its_recursion(word, other):
    assert edit_distance(word, other) == levenshtein(word, other)


predictions = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), unique=True), st.sampled_from(["x", "y"])),
    min_size=1,
    max_size=20,
).map(lambda rows: [row_of(i, word, *words, layout=layout) for i, (word, words, layout) in enumerate(rows)])


@settings(deadline=None)
@given(predictions)
def test_bounds_of_the_metrics(rows):
    found = scores(rows)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["accuracy_1"] <= found["accuracy_3"] <= found["accuracy_4"]
    assert found["accuracy_1"] - 1e-9 <= found["swipe_mrr"] <= found["mrr"] + 1e-9
    assert found["swipe_mrr"] <= 0.9 * found["accuracy_1"] + 0.1 * found["accuracy_4"] + 1e-9
    assert scores(rows[::-1]) == pytest.approx(found)
