"""Synthetic traces for any layout and any words: minimum-jerk strokes from key to key.

A word's letters are keys to pass; a doubled letter is one key. The hand aims at a place a_i near each key's centre, and
its path is a sum of strokes, each of which begins before the one before has ended, so that corners are cut:

    p(t) = a_0 + sum_i [ (a_i+1 - a_i) s(u_i) + c_i n_i b(u_i) ],    u_i = (t - t_i) / T_i, within 0 and 1,
    s(u) = 10 u^3 - 15 u^4 + 6 u^5,    the straight way of least jerk, at rest at both ends (Flash and Hogan, 1985),
    b(u) = 16 u^2 (1 - u)^2,           a bow to the side n_i of the stroke,
    T_i = (delay + slope log2(1 + d_i)) e^(...),    Fitts's law for d_i key widths, times lognormal factors,
    t_i+1 = t_i + T_i - o_i min(T_i, T_i+1) + pause_i+1.

Sums of overlapping strokes are Flash and Henis's (1991) model of a hand whose target changes. What is random is a
``Writer``; seq2seq.swipe.traces.fit fits it to real swipes, and ``writer.json`` is the result. Trace number i takes its
random numbers from the i-th section of one counter-based stream, so that it is the same in a batch of any size.

Shapes: n traces, k keys of the longest word, m points of the longest trace.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from scipy.special import ndtr, ndtri

from adapters.validation import refuse
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.traces.trace import Trace
from seq2seq.swipe.traces.writer import Writer, fitted_writer

MOST_KEYS = 48
"""The keys of a word that random numbers are set apart for."""

PER_TRACE, PER_KEY = 16, 8
DRAWS = PER_TRACE + MOST_KEYS * PER_KEY
"""Random numbers of a trace. A multiple of 4: Philox's counter counts blocks of four."""

LONGEST_REST = 2.0
"""Seconds."""

BLOCK = 512
"""Traces of similar length whose points are computed together."""

PORTION = 4096
"""Words of an iterable that are drawn together."""

WHERE = "synthetic traces"


def synthetic_points(
    words: Sequence[str], layout: Layout, rate: float, seed: int, first: int = 0, writer: Writer | None = None
) -> list[np.ndarray]:
    """A synthetic trace of each word, for training on the fly.

    Args:
        words: of letters of the layout's alphabet.
        rate: points per second. As in ``resampled``, the last point is the end of the trace.
        seed: of all traces.
        first: the number of the first word's trace. The same seed, number, word and layout give the same trace.
        writer: by default ``fitted_writer()``.

    Returns:
        For each word (time, 2) float32: x and y in key widths.

    Raises:
        ConfigurationError: a word is empty or too long, or has a letter without a key.
    """
    return _drawn(words, layout, rate, seed, first, writer or fitted_writer())[0]


def synthetic_traces(
    words: Iterable[str], layout: Layout, seed: int, rate: float = 60.0, first: int = 0, writer: Writer | None = None
) -> Iterator[Trace]:
    """Synthetic traces as a phone reports them, for files: the traces of ``synthetic_points`` in whole pixels and ms.

    As on a phone, there is no point where nothing has moved, but for the last.

    Args:
        words: may be endless; read in portions.
        rate: of the touch screen, points per second.
    """
    words = iter(words)
    while portion := list(islice(words, PORTION)):
        drawn, seconds = _drawn(portion, layout, rate, seed, first, writer or fitted_writer())
        first += len(portion)
        for word, points, end in zip(portion, drawn, seconds.tolist(), strict=True):
            pixels = np.round(points * layout.key_width)
            times = np.round(1000 * np.minimum(np.arange(len(points)) / rate, end)).astype(np.int32)
            moved = np.append(True, (pixels[1:] != pixels[:-1]).any(1))
            moved[-1] = True
            yield Trace(word, pixels[moved, 0], pixels[moved, 1], times[moved], layout.name)


def _drawn(
    words: Sequence[str], layout: Layout, rate: float, seed: int, first: int, writer: Writer
) -> tuple[list[np.ndarray], np.ndarray]:
    """The points of each word, and the seconds that its trace takes (n,) float32."""
    if not rate > 0:
        refuse("rate", "must be above 0", str(rate), "30 points per second are usual", WHERE)
    strokes = _Strokes(words, layout, seed, first, writer)
    counts = np.maximum(np.ceil(strokes.seconds * rate), 1).astype(np.int64) + 1  # (n,)
    found: dict[int, np.ndarray] = {}
    order = np.argsort(counts, kind="stable")
    for begin in range(0, len(words), BLOCK):
        rows = order[begin : begin + BLOCK]
        times = np.arange(counts[rows[-1]], dtype=np.float32) / np.float32(rate)
        points = strokes.at(rows, np.minimum(times, strokes.seconds[rows, None]))  # (rows, m, 2)
        found |= {row: drawn[: counts[row]].copy() for row, drawn in zip(rows.tolist(), points, strict=True)}
    return [found[row] for row in range(len(words))], strokes.seconds


class _Strokes:
    """The strokes of each word."""

    def __init__(self, words: Sequence[str], layout: Layout, seed: int, first: int, writer: Writer):
        letters, self.keys = _letters(words, layout)
        n, k = letters.shape
        inner = np.arange(k) < self.keys[:, None]  # (n, k): padding is False
        trace, key = _normal(seed, first, n, k)  # (n, PER_TRACE), (n, k, PER_KEY)
        boxes = layout.boxes[letters]  # (n, k, 4)

        pace = writer.trace_spread * trace[:, 2]  # (n,), logarithm
        spread = np.repeat(np.exp(writer.care_spread * trace[:, 3] - writer.haste * pace)[:, None], k, 1)
        spread[:, 0] *= writer.first_aim
        spread[np.arange(n), self.keys - 1] *= writer.last_aim
        noise = key[..., :2] * [writer.aim_x, writer.aim_y] * spread[..., None]
        noise += trace[:, None, :2] * [writer.shift_x, writer.shift_y]
        aims = boxes[..., :2] + noise * boxes[..., 2:]  # (n, k, 2)
        ways = np.diff(boxes[..., :2], axis=1)  # (n, k - 1, 2)
        beyond = writer.overshoot + writer.overshoot_spread * key[:, 1:, 2]
        aims[:, 1:] += beyond[..., None] * ways
        self.origin = aims[:, 0].astype(np.float32)
        self.ways = (np.diff(aims, axis=1) * inner[:, 1:, None]).astype(np.float32)
        turned = self.ways[..., ::-1] * np.float32([-1, 1])
        self.bows = (writer.bow * key[:, 1:, 3, None] * turned).astype(np.float32)
        self.skew = np.float32(writer.skew)
        self.lags = (writer.lag * np.exp(writer.lag_spread * trace[:, 11:12])).astype(np.float32)  # (n, 1)
        self.ticks = ndtr(trace[:, 12:13]).astype(np.float32)  # (n, 1)
        self.phases = (2 * np.pi * ndtr(trace[:, 6:8])).astype(np.float32)  # (n, 2)
        self.swing, self.swings = np.float32(writer.tremor), np.float32(2 * np.pi * writer.tremor_rate)

        distance = np.linalg.norm(ways, axis=2)  # (n, k - 1)
        factor = np.exp(pace[:, None] + writer.stroke_spread * key[:, 1:, 4])
        times = (writer.delay + writer.slope * np.log2(1 + distance)) * factor * inner[:, 1:]
        cosine = (ways[:, :-1] * ways[:, 1:]).sum(2) / np.maximum(distance[:, :-1] * distance[:, 1:], 1e-6)
        overlap = writer.overlap + writer.overlap_trace * trace[:, 8:9] + writer.overlap_key * key[:, 1:-1, 7]
        overlap = np.clip(overlap + writer.overlap_ahead * cosine, 0, 0.9)
        rests = key[:, 1:-1, 5] < ndtri(writer.pause_share) + writer.pause_slow * trace[:, 2:3]  # (n, k - 2)
        pauses = rests * rest(writer.pause_seconds, writer.pause_spread, key[:, 1:-1, 6])
        steps = times[:, :-1] + pauses - overlap * ~rests * np.minimum(times[:, :-1], times[:, 1:])
        tap = self.keys == 1
        start = np.where(
            tap | (trace[:, 9] < ndtri(writer.start_share)),
            rest(writer.start_seconds, writer.start_spread, trace[:, 4]),
            -writer.start_cut * ndtr(trace[:, 4]) * times[:, :1].sum(1),
        )
        end = np.where(
            tap | (trace[:, 10] < ndtri(writer.end_share)),
            rest(writer.end_seconds, writer.end_spread, trace[:, 5]),
            -writer.end_cut * ndtr(trace[:, 5]) * (times * (np.arange(1, k) == self.keys[:, None] - 1)).sum(1),
        )
        self.times = times.astype(np.float32)
        self.begins = np.cumsum(np.concatenate([start[:, None], steps * inner[:, 2:]], 1), 1)[:, : k - 1]
        last = (self.begins + times).max(1, initial=0)  # (n,)
        self.seconds = np.maximum(np.maximum(last, start) + end, 0).astype(np.float32)  # (n,)
        self.begins = self.begins.astype(np.float32)

    def at(self, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Points (rows, m, 2) float32 at ``times`` (rows, m)."""
        if self.lags.any():
            lag = self.lags[rows]
            times = np.maximum(times - lag * ((times / lag + self.ticks[rows]) % 1), 0)
        points = np.repeat(self.origin[rows, None], times.shape[1], 1)
        if self.swing:
            points += self.swing * np.sin(self.swings * times[..., None] + self.phases[rows, None])
        for stroke in range(self.keys[rows].max() - 1):
            begun = times - self.begins[rows, stroke, None]
            u = np.clip(begun / np.maximum(self.times[rows, stroke, None], 1e-6), 0, 1)  # (rows, m)
            if self.skew:
                u += self.skew * u * (1 - u)
            square = u * u
            points += (square * u * (10 - 15 * u + 6 * square))[..., None] * self.ways[rows, None, stroke]
            if self.bows.any():
                points += (16 * square * (1 - u) ** 2)[..., None] * self.bows[rows, None, stroke]
        return points


def rest(seconds: float, spread: float, normal: np.ndarray) -> np.ndarray:
    """How long a finger rests, seconds: log-normal up to ``LONGEST_REST``, as its tail has no end."""
    return np.minimum(seconds * np.exp(spread * normal), LONGEST_REST)


def _normal(seed: int, first: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Independent standard normal numbers of traces first .. first + n: (n, PER_TRACE) and (n, k, PER_KEY), float64."""
    stream = np.random.Philox(seed)
    stream.advance(first * DRAWS // 4)
    uniform = np.random.Generator(stream).random((n, DRAWS))[:, : PER_TRACE + k * PER_KEY]
    normal = ndtri(np.maximum(uniform, 1e-12))
    return normal[:, :PER_TRACE], normal[:, PER_TRACE:].reshape(n, k, PER_KEY)


def _letters(words: Sequence[str], layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The keys to pass: letters (n, k) int64, the last one repeated, and how many of them are a word's (n,) int64."""
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    if len(words) and not lengths.min() > 0:
        refuse("words", "must have letters", f"an empty word at place {lengths.argmin()}", "leave it out", WHERE)
    codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
    known = np.array([ord(letter) for letter in layout.alphabet], np.uint32)
    found = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    row = np.repeat(np.arange(len(words)), lengths)
    for place in np.flatnonzero(known[found] != codes)[:1]:
        given = f"{chr(codes[place])!r} in {words[row[place]]!r}"
        refuse("words", f"must be of letters of the layout {layout.name!r}", given, "leave the word out", WHERE)
    new = np.ones(len(codes), bool)
    new[1:] = (codes[1:] != codes[:-1]) | (row[1:] != row[:-1])
    row, found = row[new], found[new]
    keys = np.bincount(row, minlength=len(words))
    if keys.max(initial=0) > MOST_KEYS:
        word = words[keys.argmax()]
        refuse(
            "words", f"must have at most {MOST_KEYS} keys", f"{len(word)} letters, {word[:20]!r}...", "cut it", WHERE
        )
    ends = np.cumsum(keys)
    place = np.arange(max(keys.max(initial=1), 1))
    index = (ends - keys)[:, None] + np.minimum(place, keys[:, None] - 1)
    return found[index], keys
