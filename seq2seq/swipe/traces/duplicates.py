"""Traces that are in two splits: a model has seen them, and their score says nothing."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from seq2seq.swipe.traces.trace import Trace

STEPS = 100
"""Positions count as equal if they are within the same hundredth of a pixel."""


class Place(NamedTuple):
    """A trace of a split, by its index."""

    split: str
    index: int
    word: str


def duplicates(splits: Mapping[str, Iterable[Trace]]) -> list[list[Place]]:
    """Find traces that are in several splits: for each one all places where it is.

    Traces are equal if their curves and layouts are, whatever their words; it does not matter when time begins.
    """
    places: dict[bytes, list[Place]] = {}
    for split, traces in splits.items():
        for index, trace in enumerate(traces):
            places.setdefault(_digest(trace), []).append(Place(split, index, trace.word))
    return [found for found in places.values() if len({place.split for place in found}) > 1]


def _digest(trace: Trace) -> bytes:
    digest = hashlib.blake2b(trace.layout.encode(), digest_size=16)
    for values in (trace.x * STEPS, trace.y * STEPS, trace.t - trace.t[0]):
        digest.update(np.rint(values).astype("<i8").tobytes())
    return digest.digest()
