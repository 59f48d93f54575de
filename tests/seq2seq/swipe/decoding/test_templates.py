"""Shape templates: geometry in closed form, the channels by loops, and real swipes."""

import json
import string
from pathlib import Path

import numpy as np
import pytest

from adapters import ConfigurationError
from seq2seq.swipe.decoding.templates import (
    LOCATION_WIDTH,
    POINTS,
    SHAPE_WIDTH,
    Templates,
    by_arc_length,
    normalised,
)
from seq2seq.swipe.decoding.words_by_ends import LANGUAGE_WEIGHT
from seq2seq.swipe.keyboards.layout import layout_from_rows

LAYOUT = layout_from_rows("qwerty", "en", ["qwertyuiop", "asdfghjkl", "zxcvbnm"])
REAL = Path("/work/shared/data/swipes/qwerty_english_800.jsonl")
WORDS = ["hello", "help", "world", "word", "to", "too", "a", "tree", "three", "pot", "top"]


def centres_of(word: str) -> np.ndarray:
    return np.array([LAYOUT.boxes[LAYOUT.alphabet.index(letter), :2] for letter in word])


def dense(word: str) -> np.ndarray:
    """The ideal trace of a word."""
    return by_arc_length(centres_of(word)[None], 200)[0]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([[0, 0], [4, 0]], [[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]]),
        ([[0, 0], [3, 0], [4, 0]], [[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]]),
        ([[0, 0], [2, 0], [2, 0], [2, 2]], [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]]),
        ([[0, 0], [0, 0], [4, 0], [4, 0]], [[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]]),
        ([[1, 2]], [[1, 2]] * 5),
        ([[1, 2], [1, 2]], [[1, 2]] * 5),
    ],
)
def test_points_at_equal_arc_length(path, expected):
    found = by_arc_length(np.array([path, path], float), 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [expected] * 2, atol=1e-6)


def test_shapes_know_neither_place_nor_size():
    path = dense("world")
    np.testing.assert_allclose(normalised(3 * path[None] + 5), normalised(path[None]), atol=1e-5)
    assert np.ptp(normalised(path[None]), axis=1).max() == pytest.approx(1)
    assert not normalised(dense("a")[None]).any()


def test_the_channels_by_loops():
    templates = Templates(WORDS, LAYOUT)
    trace = centres_of("world") + np.array([0.3, -0.1])
    numbers = np.arange(len(WORDS))
    shape, location = templates.distances(trace, numbers)
    path = by_arc_length(trace[None], POINTS)[0].astype(float)
    weights = [abs(2 * i / (POINTS - 1) - 1) for i in range(POINTS)]
    for number in numbers:
        template = by_arc_length(centres_of(templates.words[number])[None], POINTS)[0].astype(float)
        apart = [float(np.hypot(*(path[i] - template[i]))) for i in range(POINTS)]
        assert location[number] == pytest.approx(np.average(apart, weights=weights), rel=1e-4)
        hats = []
        for points in (path, template):
            side = max(points.max(0) - points.min(0))
            hats.append((points - points.mean(0)) / (side or 1))
        assert shape[number] == pytest.approx(np.mean(np.hypot(*(hats[0] - hats[1]).T)), rel=1e-4, abs=1e-6)
    found = templates.words.index("world")
    assert shape[found] == pytest.approx(0, abs=1e-5)
    assert location[found] == pytest.approx(np.hypot(0.3, 0.1))


@pytest.mark.parametrize("word", WORDS)
def test_the_ideal_trace_of_a_word_is_that_word(word):
    frequencies = np.array([0.0 if other == word else -0.1 for other in WORDS])  # "to" and "too" are one path
    found = Templates(WORDS, LAYOUT, frequencies).candidates(dense(word))
    assert found[0].word == word
    values = [candidate.log_probability for candidate in found]
    assert values == sorted(values, reverse=True)
    assert len({candidate.word for candidate in found}) == len(found) <= 4


def test_log_probabilities_are_gaussian_and_sum_to_one():
    templates = Templates(WORDS, LAYOUT, np.linspace(-9, -3, len(WORDS)))
    trace = dense("tree")
    near = templates.near(trace)
    assert {templates.words[number] for number in near} == {"tree", "three"}
    shape, location = templates.distances(trace, near)
    logits = -((shape / SHAPE_WIDTH) ** 2 + (location / LOCATION_WIDTH) ** 2) / 2
    logits += LANGUAGE_WEIGHT * templates.log_frequencies[near]
    shares = np.exp(logits) / np.exp(logits).sum()
    found = templates.candidates(trace)
    assert [candidate.log_probability for candidate in found] == pytest.approx(sorted(np.log(shares))[::-1])


def test_words_are_pruned_by_their_ends_unless_none_is_left():
    templates = Templates(WORDS, LAYOUT)
    near = [templates.words[number] for number in templates.near(dense("to"))]
    assert sorted(near) == ["to", "too", "top"]  # p is beside o
    assert len(templates.near(np.full((2, 2), 50.0))) == len(WORDS)


@pytest.mark.parametrize(("words", "given"), [(["a", "don't"], "don't"), (["a", ""], "''"), ([], "none")])
def test_words_that_cannot_be_typed_are_refused(words, given):
    with pytest.raises(ConfigurationError, match=f"letters of layout 'qwerty'.*{given}"):
        Templates(words, LAYOUT)


def test_layouts_of_other_letters():
    layout = layout_from_rows("йцукен", "ru", ["йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"])
    trace = np.array([layout.boxes[layout.alphabet.index(letter), :2] for letter in "привет"])
    found = Templates(["привет", "прибыл", "пакет"], layout).candidates(trace)
    assert found[0].word == "привет"


@pytest.mark.skipif(not REAL.is_file(), reason=f"no real swipes: {REAL} is missing")
def test_real_swipes():
    rows = [json.loads(line) for line in REAL.read_text().splitlines()][::10]
    words = sorted({json.loads(line)["word"] for line in REAL.read_text().splitlines()})
    assert {*"".join(words)} <= {*string.ascii_lowercase}
    points = [
        np.stack([np.array(row["x"]) * 360 / row["keyboard_width"], np.array(row["y"]) - 3], 1) / 36 for row in rows
    ]
    templates = Templates(words, LAYOUT)
    found = [templates.candidates(trace) for trace in points]
    hits = [candidates[0].word == row["word"] for candidates, row in zip(found, rows, strict=True)]
    assert np.mean(hits) > 0.8  # of 444 words
