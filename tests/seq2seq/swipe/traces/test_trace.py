"""Traces at one rate, and as a batch."""

import numpy as np
import pytest
from scipy.interpolate import interp1d

from adapters.validation import ConfigurationError
from seq2seq.swipe.keyboards.layout import load_layout
from seq2seq.swipe.traces.trace import Trace, padded, resampled

QWERTY = load_layout("qwerty")


def trace_at(t, x=None) -> Trace:
    t = np.array(t, np.int32)
    x = np.linspace(0, 36 * (len(t) - 1), len(t), dtype=np.float32) if x is None else np.float32(x)
    return Trace("qw", x, 2 * x, t, "qwerty")


@pytest.mark.parametrize(
    ("t", "rate", "x"),
    [
        ([0, 1000], 2, [0, 0.5, 1]),
        ([0, 1000, 1500], 2, [0, 0.5, 1, 2]),
        ([0, 1000], 3, [0, 1 / 3, 2 / 3, 1]),
        ([0, 1100], 2, [0, 1 / 2.2, 2 / 2.2, 1]),  # the last point comes early
        ([700, 1700], 2, [0, 0.5, 1]),
        ([0, 10], 30, [0, 1]),
        ([0, 100], 30, [0, 1 / 3, 2 / 3, 1]),  # .1 * 30 > 3 in floating point
        ([0], 30, [0, 0]),
    ],
)
def test_one_rate(t, rate, x):
    points = resampled(trace_at(t), QWERTY, rate)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, np.stack([x, 2 * np.array(x)], 1), rtol=1e-6)


def test_one_rate_is_that_of_another_library():
    random = np.random.default_rng(0)
    trace = trace_at(np.cumsum(random.integers(1, 40, 50)), random.uniform(0, 360, 50))
    points = resampled(trace, QWERTY, 45)
    seconds = (trace.t - trace.t[0]) / 1000
    at = np.minimum(np.arange(len(points)) / 45, seconds[-1])
    np.testing.assert_allclose(points[:, 0] * 36, interp1d(seconds, trace.x)(at), rtol=1e-5)
    assert (len(points) - 2) / 45 < seconds[-1] <= (len(points) - 1) / 45


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_is_positive(rate):
    with pytest.raises(ConfigurationError, match=r"'rate' .*positive"):
        resampled(trace_at([0, 1000]), QWERTY, rate)


def test_a_batch():
    points, mask = padded([np.ones((2, 2), np.float32), np.full((3, 2), 2, np.float32)])
    assert points[:, :, 0].tolist() == [[1, 1, 0], [2, 2, 2]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert (points.dtype, mask.dtype) == (np.float32, np.int64)


def test_an_empty_batch_is_empty():
    points, mask = padded([])
    assert (points.shape, mask.shape) == ((0, 0, 2), (0, 0))
