"""Nearest keys: the edit distance against its recursion, and words by hand."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.swipe.decoding.nearest_keys import (
    MISSING,
    PASSED,
    SUBSTITUTED,
    TEMPERATURE,
    NearestKeys,
    collapsed,
)
from seq2seq.swipe.decoding.words_by_ends import LANGUAGE_WEIGHT
from seq2seq.swipe.keyboards.layout import layout_from_rows

LAYOUT = layout_from_rows("qwerty", "en", ["qwertyuiop", "asdfghjkl", "zxcvbnm"])
WORDS = ["hello", "help", "world", "word", "to", "too", "tree", "three", "top"]


def centre(letter: str) -> np.ndarray:
    return LAYOUT.boxes[LAYOUT.alphabet.index(letter), :2]


def on(keys: str) -> np.ndarray:
    """A trace with a point on each key."""
    return np.array([centre(key) for key in keys])


def distance(keys: str, word: str) -> float:
    """The least cost, by recursion over the last letters; without double letters."""
    keys, word = ("".join(a for a, b in zip(text, " " + text, strict=False) if a != b) for text in (keys, word))

    @cache
    def least(read: int, written: int) -> float:
        if read == written == 0:
            return 0.0
        costs = []
        if read:
            costs.append(least(read - 1, written) + PASSED)
        if written:
            costs.append(least(read, written - 1) + MISSING)
        if read and written:
            apart = float(np.hypot(*(centre(keys[read - 1]) - centre(word[written - 1]))))
            costs.append(least(read - 1, written - 1) + SUBSTITUTED * apart)
        return min(costs)

    return least(len(keys), len(word))


@settings(deadline=None, max_examples=50)
@given(st.text("asdhelowrt", min_size=1, max_size=8))
def test_distances_are_those_of_the_recursion(keys):
    lexicon = NearestKeys(WORDS, LAYOUT)
    found = lexicon.distances(on(keys), np.arange(len(WORDS)))
    expected = [distance(keys, word) for word in lexicon.words]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_subsequence_costs_only_the_keys_that_were_passed():
    lexicon = NearestKeys(["hello"], LAYOUT)
    found = lexicon.distances(on("hgferfghjkklllo"), np.array([0]))
    assert found == pytest.approx(PASSED * len("gfrfghjk"))


@pytest.mark.parametrize(
    ("keys", "word"),
    [("hgtrertyuiklo", "hello"), ("woirtyuiklkjhgfd", "world"), ("tgfre", "tree"), ("thgrew", "three")],
)
def test_words_by_hand(keys, word):
    found = NearestKeys(WORDS, LAYOUT).candidates(on(keys))
    assert found[0].word == word
    values = [candidate.log_probability for candidate in found]
    assert values == sorted(values, reverse=True)


def test_equal_strings_are_ranked_by_frequency():
    for frequencies, first in (([-1.0, -2.0], "to"), ([-2.0, -1.0], "too")):
        found = NearestKeys(["to", "too"], LAYOUT, np.array(frequencies)).candidates(on("tyuio"))
        assert found[0].word == first
        assert found[0].log_probability - found[1].log_probability == pytest.approx(LANGUAGE_WEIGHT)


def test_log_probabilities_are_distances_by_the_temperature():
    found = NearestKeys(["to", "top"], LAYOUT).candidates(on("tyuiop"))
    difference = distance("tyuiop", "top") - distance("tyuiop", "to")
    by_word = {candidate.word: candidate.log_probability for candidate in found}
    assert by_word["to"] - by_word["top"] == pytest.approx(difference / TEMPERATURE, rel=1e-5)
    assert np.exp([*by_word.values()]).sum() == pytest.approx(1)


def test_repeats_collapse():
    assert collapsed(np.array([0, 0, 1, 1, 0, 2])).tolist() == [0, 1, 0, 2]
