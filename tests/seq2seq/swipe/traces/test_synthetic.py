"""Synthetic traces: closed forms of an exact writer, seeds, batches, other layouts, refusals."""

from dataclasses import replace

import numpy as np
import pytest

from adapters.validation import ConfigurationError
from seq2seq.swipe.keyboards.layout import layout_from_rows
from seq2seq.swipe.traces.synthetic import LONGEST_REST, MOST_KEYS, synthetic_points, synthetic_traces
from seq2seq.swipe.traces.writer import Writer, fitted_writer

QWERTY = layout_from_rows("qwerty", "en", ["qwertyuiop", "asdfghjkl", "zxcvbnm"], [0, 0.5, 1.5])
RUSSIAN = layout_from_rows("йцукен", "ru", ["йцукенгшщзхъ", "фывапролджэ", "ячсмитьбюё"])
EXACT = Writer(delay=0.3, slope=0.1)


def centres(word, layout=QWERTY):
    return layout.boxes[[layout.alphabet.index(letter) for letter in word], :2].astype(np.float64)


def test_an_exact_stroke_is_the_polynomial_of_least_jerk_in_fitts_time():
    (points,) = synthetic_points(["qp"], QWERTY, 200, 0, writer=EXACT)
    begin, end = centres("qp")
    seconds = 0.3 + 0.1 * np.log2(1 + 9)
    u = np.minimum(np.arange(len(points)) / 200, seconds) / seconds
    assert len(points) == int(np.ceil(seconds * 200)) + 1
    np.testing.assert_allclose(points, begin + np.outer(10 * u**3 - 15 * u**4 + 6 * u**5, end - begin), atol=1e-4)


def test_an_exact_hand_is_at_rest_at_each_end_and_each_key():
    rate = 1000
    (points,) = synthetic_points(["zqpm"], QWERTY, rate, 0, writer=EXACT)
    speed = np.linalg.norm(np.diff(points, axis=0), axis=1) * rate
    times = np.cumsum(0.3 + 0.1 * np.log2(1 + np.linalg.norm(np.diff(centres("zqpm"), axis=0), axis=1)))
    for at, centre in zip([0, *times], centres("zqpm"), strict=True):
        step = min(int(at * rate), len(speed) - 1)
        assert speed[step] < 0.05 * speed.max()
        np.testing.assert_allclose(points[step], centre, atol=1e-3)
    assert speed.max() > 20


def test_overlap_cuts_corners_and_saves_time():
    (exact,) = synthetic_points(["qpz"], QWERTY, 100, 0, writer=EXACT)
    (cut,) = synthetic_points(["qpz"], QWERTY, 100, 0, writer=replace(EXACT, overlap=0.5))
    corner = centres("p")
    assert np.linalg.norm(exact - corner, axis=1).min() < 1e-3
    assert 0.2 < np.linalg.norm(cut - corner, axis=1).min() < 3
    np.testing.assert_allclose(cut[[0, -1]], exact[[0, -1]], atol=1e-4)
    strokes = 0.3 + 0.1 * np.log2(1 + np.linalg.norm(np.diff(centres("qpz"), axis=0), axis=1))
    assert len(exact) - len(cut) == pytest.approx(100 * 0.5 * strokes.min(), abs=2)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({"start_seconds": 0.5}, 0.5),
        ({"end_seconds": 0.25}, 0.25),
        ({"pause_share": 1, "pause_seconds": 0.3}, 0.3),  # one inner key
    ],
)
def test_rests_change_the_duration_by_their_seconds(change, seconds):
    word = "qpo"
    (exact,) = synthetic_points([word], QWERTY, 1000, 0, writer=EXACT)
    (changed,) = synthetic_points([word], QWERTY, 1000, 0, writer=replace(EXACT, **change))
    assert len(changed) - len(exact) == pytest.approx(1000 * seconds, abs=2)


@pytest.mark.parametrize(("end", "seconds"), [("start", 0.3 + 0.1 * np.log2(10)), ("end", 0.3 + 0.1)])
def test_fingers_in_motion_miss_a_uniform_share_of_the_first_or_last_stroke(end, seconds):
    writer = replace(EXACT, **{f"{end}_share": 0, f"{end}_cut": 0.5})
    (exact,) = synthetic_points(["qpo"], QWERTY, 1000, 0, writer=EXACT)
    missed = np.array(
        [len(exact) - len(cut) for cut in synthetic_points(["qpo"] * 500, QWERTY, 1000, 0, writer=writer)]
    )
    assert missed.min() >= 0
    assert missed.max() <= 500 * seconds + 1
    assert missed.mean() == pytest.approx(250 * seconds, rel=0.1)
    assert missed.std() == pytest.approx(500 * seconds / np.sqrt(12), rel=0.1)


def test_a_bow_and_an_overshoot_are_shares_of_the_stroke():
    bowed = synthetic_points(["qp"] * 2000, QWERTY, 60, 0, writer=replace(EXACT, bow=0.1))
    sideways = np.array([trace[np.abs(trace[:, 0] - 5).argmin(), 1] - trace[0, 1] for trace in bowed])
    assert sideways.std() == pytest.approx(0.1 * 9, rel=0.06)
    (beyond,) = synthetic_points(["qp"], QWERTY, 60, 0, writer=replace(EXACT, overshoot=0.1))
    np.testing.assert_allclose(beyond[-1], centres("p")[0] + [0.9, 0], atol=1e-4)


def test_a_screen_reports_where_the_finger_was_at_its_latest_look():
    exact, lagged = (synthetic_points(["qp"], QWERTY, 1000, 0, writer=replace(EXACT, lag=lag))[0] for lag in (0, 0.02))
    assert (lagged[:, 0] <= exact[:, 0] + 1e-3).all()
    assert (lagged[20:, 0] >= exact[:-20, 0] - 1e-3).all()
    assert len(np.unique(lagged[:, 0].round(3))) == pytest.approx(len(exact) / 20, abs=3)


def test_a_tremor_swings_the_finger():
    taps = synthetic_points(["a"] * 100, QWERTY, 60, 0, writer=replace(EXACT, tremor=0.05, start_seconds=1))
    away = np.stack(taps) - centres("a")
    np.testing.assert_allclose(np.abs(away).max(1), 0.05, rtol=0.05)


def test_slow_hands_rest_more_often():
    writer = replace(EXACT, trace_spread=0.3, pause_share=0.5, pause_seconds=1, pause_slow=5)
    counts = np.array([len(trace) for trace in synthetic_points(["qpz"] * 500, QWERTY, 30, 0, writer=writer)])
    slow = np.array(
        [len(t) for t in synthetic_points(["qpz"] * 500, QWERTY, 30, 0, writer=replace(writer, pause_share=0))]
    )
    rested = counts - slow
    assert rested[slow > np.quantile(slow, 0.8)].mean() > 25
    assert rested[slow < np.quantile(slow, 0.2)].mean() < 5


def test_aims_have_the_spread_of_the_writer():
    writer = replace(EXACT, aim_x=0.2, aim_y=0.1, last_aim=2, shift_x=0.1)
    points = synthetic_points(["qp"] * 4000, QWERTY, 30, 0, writer=writer)
    ends = np.array([[trace[0], trace[-1]] for trace in points]) - centres("qp")
    height = QWERTY.boxes[0, 3]
    np.testing.assert_allclose(ends.mean(0), 0, atol=0.03)
    expected = [[np.hypot(0.2, 0.1), 0.1 * height], [np.hypot(0.4, 0.1), 0.2 * height]]
    np.testing.assert_allclose(ends.std(0), expected, rtol=0.05)
    assert np.corrcoef(ends[:, 0, 0], ends[:, 1, 0])[0, 1] == pytest.approx(
        0.01 / np.prod([np.hypot(0.2, 0.1), np.hypot(0.4, 0.1)]), abs=0.05
    )


def test_doubled_letters_are_one_key_and_single_keys_are_taps():
    double, single, tap = synthetic_points(["book", "bok", "oo"], QWERTY, 60, 0, writer=EXACT)
    np.testing.assert_array_equal(double, single)
    np.testing.assert_allclose(tap, centres("oo"), atol=1e-6)


def test_traces_depend_on_seed_and_number_but_not_on_the_batch():
    words = ["hello", "a", "participate", "zoo", "we"] * 300  # more than a block
    together = synthetic_points(words, QWERTY, 30, 7)
    assert synthetic_points([], QWERTY, 30, 7) == []
    for size in (1, 64):
        for first in (0, 1, 13, 999):
            apart = synthetic_points(words[first : first + size], QWERTY, 30, 7, first=first)
            for one, two in zip(apart, together[first : first + size], strict=True):
                np.testing.assert_array_equal(one, two)
    assert not np.array_equal(together[0][0], together[5][0])  # the same word
    assert not np.array_equal(synthetic_points(words[:1], QWERTY, 30, 8)[0][0], together[0][0])


@pytest.mark.parametrize(("layout", "word"), [(QWERTY, "hello"), (RUSSIAN, "привет"), (RUSSIAN, "ёж")])
def test_fitted_traces_pass_near_their_letters_on_any_layout(layout, word):
    traces = synthetic_points([word] * 200, layout, 60, 0)
    targets = centres(word, layout)
    away = [np.linalg.norm(trace[:, None] - targets, axis=2).min(0) for trace in traces]
    assert np.median(away) < 0.6
    assert all(np.isfinite(trace).all() and trace.dtype == np.float32 for trace in traces)


def test_traces_for_files_are_the_same_in_pixels_and_milliseconds():
    words = ["hello", "zoo", "a"]
    points = synthetic_points(words, QWERTY, 60, 3)
    for word, drawn, trace in zip(words, points, synthetic_traces(iter(words), QWERTY, 3), strict=True):
        assert (trace.word, trace.layout) == (word, "qwerty")
        assert (trace.x.dtype, trace.y.dtype) == (np.float32, np.float32)
        drawn = drawn[np.minimum(np.round(trace.t * 0.06).astype(int), len(drawn) - 1)[:-1]]
        np.testing.assert_allclose(np.stack([trace.x, trace.y], 1)[:-1], drawn * 36, atol=0.51)
        assert np.diff([trace.x[:-1], trace.y[:-1]]).any(0).all()  # no point where nothing moved
        assert trace.t.dtype == np.int32
        assert trace.t[0] == 0
        assert (np.diff(trace.t) >= 0).all()


def test_the_fitted_writer_is_of_finite_shares_and_times():
    writer = fitted_writer()
    assert 0.05 < writer.delay + writer.slope < 1
    assert writer != Writer()


@pytest.mark.parametrize(
    ("words", "rate", "message"),
    [
        (["ok", "naïve"], 30, r"must be of letters of the layout 'qwerty'; got 'ï' in 'naïve'"),
        (["ok", "Hello"], 30, r"got 'H' in 'Hello'"),
        (["ok", ""], 30, r"must have letters; got an empty word at place 1"),
        (["ab" * MOST_KEYS], 30, rf"must have at most {MOST_KEYS} keys; got {2 * MOST_KEYS} letters"),
        (["ok"], 0, r"Key 'rate' of synthetic traces must be above 0; got 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(words, rate, message):
    with pytest.raises(ConfigurationError, match=message):
        synthetic_points(words, QWERTY, rate, 0)


def test_a_rest_has_an_end():
    """A tap rests before and after; the tail of a log-normal would last for hours."""
    slow = Writer(start_seconds=1.0, start_spread=9.0, end_seconds=1.0, end_spread=9.0)
    counts = [len(points) for points in synthetic_points(["a"] * 500, QWERTY, 10.0, seed=0, writer=slow)]
    assert max(counts) == 1 + 10 * 2 * LONGEST_REST
