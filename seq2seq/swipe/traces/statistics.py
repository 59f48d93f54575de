"""Statistics of traces, an array each, from which plots, filters and outliers follow.

    letter_error  mean distance of the centres of the word's keys to the path
    start_error   distance of the first point to the first letter's key (0 within its box); end_error is the last one's
    length_ratio  (1 + length of the path) / (1 + length of the straight lines between the centres of the word's keys)

Lengths are in key widths and times in seconds. The 1 in the ratio is a key width, which gives words of one key a ratio.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice

import numpy as np

from adapters.validation import refuse
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.traces.trace import Trace

TOGETHER = 16
"""Traces that are measured at once: few, as arrays of traces x letters x points should fit into a processor's cache."""

FAR_OUT = 3.0
"""Tukey's outer fences: so many interquartile ranges beyond the quartiles."""


@dataclass(frozen=True)
class TraceStatistics:
    """Statistics, each (traces,) float64; those that need a word are NaN where it is unknown.

    Args:
        words: the word of each trace.
        points: how many there are.
        duration: seconds.
        length: of the path, key widths.
        speed: length / duration, key widths per second.
        ideal_length: of the straight lines between the keys' centres, key widths.
    """

    words: list[str]
    points: np.ndarray
    duration: np.ndarray
    length: np.ndarray
    speed: np.ndarray
    ideal_length: np.ndarray
    length_ratio: np.ndarray
    letter_error: np.ndarray
    start_error: np.ndarray
    end_error: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The statistics by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "words"}


def trace_statistics(traces: Iterable[Trace], layouts: Mapping[str, Layout]) -> TraceStatistics:
    """Measure traces.

    Args:
        layouts: the layouts that they name.

    Raises:
        ConfigurationError: there are no traces.
    """
    words, blocks = [], []
    for some in _blocks(traces):
        words += [trace.word for trace in some]
        blocks.append(_measured(some, layouts))
    if not blocks:
        refuse("traces", "must have at least one", "none", "check the source", "the statistics")
    return TraceStatistics(words, **{name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]})


def outliers(values: np.ndarray) -> np.ndarray:
    """Where values (traces,) are beyond Tukey's outer fences, the furthest first: (outliers,) int64.

    NaN is none. Where half of the values are equal the fences have no scale, and nothing is an outlier.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.empty(0, np.int64)
    low, high = np.percentile(known, [25, 75])
    beyond = np.nan_to_num(np.maximum(low - values, values - high))
    order = np.argsort(-beyond, kind="stable")
    return order[(beyond[order] > FAR_OUT * (high - low)) & (high > low)]


def distances_to_path(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Distances of centres (batch, letters, 2) to the broken line through points (batch, time, 2): (batch, letters)."""
    x, y = (points[:, None, :, axis] for axis in (0, 1))  # (batch, 1, time)
    along_x, along_y = np.diff(x), np.diff(y)  # (batch, 1, time - 1)
    squared = np.maximum(along_x**2 + along_y**2, np.finfo(points.dtype).tiny)
    apart_x, apart_y = centres[..., 0, None] - x[..., :-1], centres[..., 1, None] - y[..., :-1]
    share = np.clip((apart_x * along_x + apart_y * along_y) / squared, 0, 1)  # where each segment is nearest
    nearest = ((apart_x - share * along_x) ** 2 + (apart_y - share * along_y) ** 2).min(-1)
    return np.sqrt(nearest)


def _blocks(traces: Iterable[Trace]) -> Iterator[list[Trace]]:
    rest = iter(traces)
    while some := list(islice(rest, TOGETHER)):
        yield some


def _measured(traces: Sequence[Trace], layouts: Mapping[str, Layout]) -> dict[str, np.ndarray]:
    points = _points(traces, layouts)
    boxes, known = _boxes(traces, layouts)  # (batch, letters, 4), (batch,)
    centres = boxes[..., :2]
    length = np.linalg.norm(np.diff(points, axis=1), axis=-1).sum(-1)
    duration = np.array([float(trace.t[-1]) - float(trace.t[0]) for trace in traces]) / 1000
    ideal = np.linalg.norm(np.diff(centres, axis=1), axis=-1).sum(-1)
    counted = np.array([len(trace.word) for trace in traces])
    letters = np.arange(boxes.shape[1]) < counted[:, None]  # (batch, letters)
    of_word = {
        "ideal_length": ideal,
        "length_ratio": (1 + length) / (1 + ideal),
        "letter_error": (distances_to_path(points, centres) * letters).sum(-1) / np.maximum(counted, 1),
        "start_error": _outside(points[:, 0], boxes[:, 0]),
        "end_error": _outside(points[:, -1], boxes[:, -1]),
    }
    return {
        "points": np.array([len(trace.t) for trace in traces], dtype=np.float64),
        "duration": duration,
        "length": length,
        "speed": length / np.maximum(duration, 1e-3),
        **{name: np.where(known, values, np.nan) for name, values in of_word.items()},
    }


def _points(traces: Sequence[Trace], layouts: Mapping[str, Layout]) -> np.ndarray:
    """The points in key widths (batch, time, 2) float64; the last one is repeated, which adds no length."""
    longest = max(2, *(len(trace.t) for trace in traces))
    points = np.empty((len(traces), longest, 2))
    for row, trace in zip(points, traces, strict=True):
        row[: len(trace.t)] = np.stack([trace.x, trace.y], 1) / layouts[trace.layout].key_width
        row[len(trace.t) :] = row[len(trace.t) - 1]
    return points


def _boxes(traces: Sequence[Trace], layouts: Mapping[str, Layout]) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of the words' letters (batch, letters, 4), the last one repeated, and whether the word is known."""
    longest = max(1, *(len(trace.word) for trace in traces))
    boxes = np.zeros((len(traces), longest, 4))
    for row, trace in zip(boxes, traces, strict=True):
        if trace.word:
            layout = layouts[trace.layout]
            row[: len(trace.word)] = layout.boxes[[layout.numbers[letter] for letter in trace.word]]
            row[len(trace.word) :] = row[len(trace.word) - 1]
    return boxes, np.array([bool(trace.word) for trace in traces])


def _outside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Distances of points (batch, 2) to boxes (batch, 4); 0 within them: (batch,)."""
    return np.linalg.norm(np.maximum(np.abs(points - boxes[:, :2]) - boxes[:, 2:] / 2, 0), axis=-1)
