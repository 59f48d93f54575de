"""Statistics against a loop over points, the filters on swipes made bad, duplicates, and the real swipes."""

import json
from itertools import pairwise

import numpy as np
import pytest

from adapters.validation import ConfigurationError
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.traces.duplicates import duplicates
from seq2seq.swipe.traces.filters import Limits, find_bad, good
from seq2seq.swipe.traces.statistics import distances_to_path, outliers, trace_statistics
from seq2seq.swipe.traces.trace import Trace

LAYOUTS = Layouts()


def ideal(word: str, layout: str = "qwerty", shift=(0.0, 0.0), points: int = 40) -> Trace:
    """Straight lines through the centres of the word's keys, moved by ``shift`` key widths."""
    found = LAYOUTS[layout]
    centres = found.boxes[[found.alphabet.index(letter) for letter in word], :2] + shift  # (letters, 2)
    at = np.linspace(0, len(word) - 1, points)
    x, y = (np.interp(at, range(len(word)), centres[:, axis]) * found.key_width for axis in (0, 1))
    return Trace(word, x.astype(np.float32), y.astype(np.float32), np.arange(points, dtype=np.int32) * 10, layout)


def along(trace: Trace, part: slice) -> Trace:
    return trace._replace(x=trace.x[part], y=trace.y[part], t=trace.t[part])


def test_statistics_of_a_straight_line():
    trace = Trace("qw", np.float32([18, 54]), np.float32([34, 34]), np.int32([0, 500]), "qwerty")
    found = {name: values.tolist() for name, values in trace_statistics([trace], LAYOUTS).arrays().items()}
    assert found == {
        "points": [2],
        "duration": [0.5],
        "length": [1],
        "speed": [2],
        "ideal_length": [1],
        "length_ratio": [1],
        "letter_error": [0],
        "start_error": [0],
        "end_error": [0],
    }


def by_hand(trace: Trace) -> dict[str, float]:
    """The statistics in a loop, with the path cut into many points."""
    layout = LAYOUTS[trace.layout]
    points = np.stack([trace.x, trace.y], 1).astype(np.float64) / layout.key_width
    keys = [layout.boxes[layout.alphabet.index(letter)].astype(np.float64) for letter in trace.word]
    dense = np.concatenate([np.linspace(a, b, 400) for a, b in pairwise(points)])
    length = sum(np.hypot(*(b - a)) for a, b in pairwise(points))
    ideal_length = sum(np.hypot(*(b - a)[:2]) for a, b in pairwise(keys))

    def outside(point, box):
        nearest = np.clip(point, box[:2] - box[2:] / 2, box[:2] + box[2:] / 2)
        return np.hypot(*(point - nearest))

    return {
        "length": length,
        "ideal_length": ideal_length,
        "letter_error": np.mean([np.hypot(*(dense - key[:2]).T).min() for key in keys]),
        "start_error": outside(points[0], keys[0]),
        "end_error": outside(points[-1], keys[-1]),
        "length_ratio": (1 + length) / (1 + ideal_length),
    }


def test_statistics_equal_those_of_a_loop():
    random = np.random.default_rng(0)
    words = ["hello", "a", "letter", "zoo", "mississippi"] * 8  # more than are measured at once
    traces = []
    for number, word in enumerate(words):
        count = int(random.integers(2, 30))
        x, y = (random.uniform(-20, 380, count).astype(np.float32) for _ in range(2))
        t = np.cumsum(random.integers(0, 30, count)).astype(np.int32)
        traces.append(Trace(word, x, y, t, ("qwerty", "dvorak", "qwertz")[number % 3]))
    measured = trace_statistics(iter(traces), LAYOUTS)
    assert measured.words == words
    for index, trace in enumerate(traces):
        for name, value in by_hand(trace).items():
            assert getattr(measured, name)[index] == pytest.approx(value, abs=2e-2 if name == "letter_error" else 1e-5)


def test_distances_agree_with_a_densely_sampled_path():
    rng = np.random.default_rng(0)
    path, places = rng.uniform(0, 9, (6, 2)), rng.uniform(0, 9, (20, 2))
    dense = np.concatenate([np.linspace(a, b, 2000) for a, b in pairwise(path)])
    expected = np.linalg.norm(places[:, None] - dense, axis=2).min(1)
    np.testing.assert_allclose(distances_to_path(path[None], places[None])[0], expected, atol=1e-3)


def test_distance_to_a_segment():
    points = np.array([[[0.0, 0], [4, 0], [4, 0], [4, 3]]])
    centres = np.array([[[2.0, 1], [-3, 4], [5, 5], [4, 1]]])
    np.testing.assert_allclose(distances_to_path(points, centres), [[1, 5, 5**0.5, 0]], atol=1e-12)


def test_an_unknown_word_has_no_statistics_of_letters_and_passes():
    statistics = trace_statistics([ideal("hello")._replace(word="")], LAYOUTS)
    assert np.isnan(statistics.letter_error).all()
    assert np.isfinite(statistics.length).all()
    assert good(find_bad(statistics)).tolist() == [0]


def test_no_traces_are_refused():
    with pytest.raises(ConfigurationError, match="at least one"):
        trace_statistics([], LAYOUTS)


def doubled(trace: Trace, times: int) -> Trace:
    """To and fro along the path, an odd number of times."""
    x, y = (np.concatenate([values, *[values[::-1], values] * (times // 2)]) for values in (trace.x, trace.y))
    return trace._replace(x=x, y=y, t=np.arange(len(x), dtype=np.int32))


SWIPES = {
    "ideal": (ideal("hello"), set()),
    "on another layout": (ideal("ship", "dvorak"), set()),
    "one key": (ideal("a"), set()),
    "half a key off": (ideal("hello", shift=(0.5, 0)), set()),
    "three keys off": (ideal("hello", shift=(3, 0)), {"ends", "letters"}),
    "of another word": (ideal("mom")._replace(word="queue"), {"ends", "letters", "length"}),
    "backwards": (along(ideal("plan"), slice(None, None, -1)), {"ends"}),
    "half of it": (along(ideal("slap"), slice(0, 12)), {"ends", "letters", "length"}),
    "to and fro": (doubled(ideal("slap"), 3), {"length"}),
}


def test_filters_find_bad_swipes():
    reports = find_bad(trace_statistics([swipe for swipe, _ in SWIPES.values()], LAYOUTS))
    for index, (name, (_, expected)) in enumerate(SWIPES.items()):
        found = {report.name for report in reports if report.bad[index]}
        assert found == expected, name
    assert good(reports).tolist() == [0, 1, 2, 3]
    assert [report.count for report in reports] == [4, 3, 3]


def test_a_report_has_the_worst_swipe_first():
    traces = [ideal("hello", shift=(shift, 0)) for shift in (0, 2, 6, 4)]
    ends = find_bad(trace_statistics(traces, LAYOUTS), examples=2)[0]
    assert [(index, word) for index, word, _ in ends.examples] == [(2, "hello"), (3, "hello")]
    assert ends.examples[0].value == pytest.approx(5.5)
    assert "3 of 4 swipes" in str(ends)
    assert "'hello' at 2 (5.50)" in str(ends)


def test_limits_can_be_turned_off_and_are_checked():
    statistics = trace_statistics([ideal("mom")._replace(word="queue"), along(ideal("slap"), slice(0, 12))], LAYOUTS)
    none = Limits(ends=np.inf, letters=np.inf, shortest=0, longest=np.inf)
    assert [report.count for report in find_bad(statistics, none)] == [0, 0, 0]
    with pytest.raises(ConfigurationError, match=r"'letters' .*from 0; got -1"):
        Limits(letters=-1)
    with pytest.raises(ConfigurationError, match=r"'ends' .*got nan"):
        Limits(ends=float("nan"))


def test_outliers():
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, np.nan, 60, -80])
    assert outliers(values).tolist() == [10, 9]
    assert outliers(np.array([0.0, 0, 0, 0, 0, 5])).tolist() == []
    assert outliers(np.full(3, np.nan)).tolist() == []


def test_duplicates_across_splits():
    one, two, three = ideal("hello"), ideal("world"), ideal("swipe")
    later = two._replace(t=two.t + np.int32(500), word="other")
    near = three._replace(x=three.x + np.float32(0.5))
    elsewhere = one._replace(layout="azerty")
    splits = {"train": [one, two, one, three], "validation": [near, elsewhere], "test": iter([later, one])}
    found = duplicates(splits)
    assert [[tuple(place) for place in places] for places in found] == [
        [("train", 0, "hello"), ("train", 2, "hello"), ("test", 1, "hello")],
        [("train", 1, "world"), ("test", 0, "other")],
    ]
    assert duplicates({"train": [one, one]}) == []


def test_filters_keep_most_real_swipes(real_swipes):
    reports = find_bad(trace_statistics(real_swipes, LAYOUTS))
    assert {report.name: report.count for report in reports} == {"ends": 32, "letters": 16, "length": 15}
    assert len(good(reports)) == 735


def test_letter_error_is_that_which_came_with_the_real_swipes(real_swipes, real_file):
    """It was computed by others from points, not from segments, in key widths of each phone."""
    given = np.array([json.loads(line)["letter_error"] for line in real_file.read_text().splitlines()])
    measured = trace_statistics(real_swipes, LAYOUTS).letter_error
    assert np.corrcoef(given, measured)[0, 1] > 0.9
    assert np.median(np.abs(given - measured)) < 0.06


def test_real_swipes_are_not_repeated(real_swipes):
    assert duplicates({"train": real_swipes[:600], "test": real_swipes[600:]}) == []
