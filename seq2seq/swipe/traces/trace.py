"""A finger trace, and the points of a batch of traces."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from adapters.validation import refuse
from seq2seq.swipe.keyboards.layout import Layout


class Trace(NamedTuple):
    """What a finger drew for a word.

    Args:
        word: the typed letters, "" if unknown.
        x, y: (points,) float32, in pixels of the layout's keyboard.
        t: (points,) int32, milliseconds, not decreasing.
        layout: the layout's name.
    """

    word: str
    x: np.ndarray
    y: np.ndarray
    t: np.ndarray
    layout: str


def resampled(trace: Trace, layout: Layout, rate: float) -> np.ndarray:
    """The trace at a constant rate: (time, 2) float32, x and y in key widths, linear between points.

    A mouse samples at other times than a phone; a model sees one rate.

    Args:
        rate: points per second. The last point is always there.

    Raises:
        ConfigurationError: the rate is not positive.
    """
    if not 0 < rate < np.inf:
        refuse("rate", "must be a positive number of points per second", repr(rate), "30 is typical", "the traces")
    t = trace.t - trace.t[0]
    count = max(int(np.ceil(t[-1] * rate / 1000)), 1) + 1
    at = np.minimum(np.arange(count) * (1000 / rate), t[-1])
    x, y = np.interp(at, t, trace.x), np.interp(at, t, trace.y)
    return (np.stack([x, y], 1) / layout.key_width).astype(np.float32)


def padded(points: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Traces as one batch: points (batch, time, 2) float32, mask (batch, time) int64, which is 0 behind the end."""
    longest = max(map(len, points), default=0)
    batch = np.zeros((len(points), longest, 2), np.float32)
    mask = np.zeros((len(points), longest), np.int64)
    for row, found in enumerate(points):
        batch[row, : len(found)], mask[row, : len(found)] = found, 1
    return batch, mask
