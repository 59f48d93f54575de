"""The traces of a split: those of a file or of a folder of traces, or synthetic ones that are drawn once.

Words are divided over the splits by a hash, six in ten for training, one for validation and three for test: those of
synthetic traces and of a ``traces_file``, of which no word of an evaluation was trained on. A file of one split has the
words that it has: those of a ``test_file`` may be among the synthetic ones of training.
"""

import logging
import zlib
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters import ConfigurationError
from seq2seq.errors import refusing
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.keys import SwipeKeys
from seq2seq.swipe.lexicon.words import Lexicon
from seq2seq.swipe.traces.duplicates import duplicates
from seq2seq.swipe.traces.filters import find_bad, good
from seq2seq.swipe.traces.reading import read_traces
from seq2seq.swipe.traces.statistics import trace_statistics
from seq2seq.swipe.traces.store import TraceStore
from seq2seq.swipe.traces.synthetic import MOST_KEYS, synthetic_points
from seq2seq.swipe.traces.trace import Trace, resampled
from seq2seq.tasks.keys import located

logger = logging.getLogger(__name__)

SEEDS: Mapping[str, int] = {"validation": 1, "test": 2}
"""Of the synthetic traces of an evaluation, the same in every run."""

SHARES = ("validation", *("test",) * 3, *("train",) * 6)


def split_of(word: str) -> str:
    """The split that a word belongs to."""
    return SHARES[zlib.crc32(word.encode()) % len(SHARES)]


def words_to_draw(lexicon: Lexicon, split: str) -> list[str]:
    """The words of a split that synthetic traces can be drawn of; longer ones are in the lexicon only."""
    return [word for word in lexicon.words if split_of(word) == split and len(word) <= MOST_KEYS]


def check_words_to_draw(words: Sized, split: str, layout: str) -> None:
    """Refuse a lexicon without words of a split."""
    if not len(words):
        raise ConfigurationError(
            f"Key 'lexicon' has words for every split; got none for {split} on {layout!r}: give more words."
        )


class ResampledTraces(Sequence[np.ndarray]):
    """The points (time, 2) of some traces, resampled when they are asked for, as all may not fit into memory."""

    def __init__(self, traces: Sequence[Trace], chosen: Sequence[int], layouts: Mapping[str, Layout], rate: float):
        self.traces, self.chosen, self.layouts, self.rate = traces, chosen, layouts, rate

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> np.ndarray:
        trace = self.traces[self.chosen[index]]
        return resampled(trace, self.layouts[trace.layout], self.rate)


@dataclass(frozen=True)
class Rows:
    """Traces of a split: each row's word, its layout, its points (time, 2), and its number in the original file."""

    words: list[str]
    layouts: list[str]
    points: Sequence[np.ndarray]
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.words)

    def traces(self, layouts: Mapping[str, Layout], rate: float, first: int) -> list[Trace]:
        """The first traces, at the rate of the model, in pixels and milliseconds."""
        found = []
        for word, name, points in zip(self.words, self.layouts, self.points, strict=True):
            if len(found) == first:
                break
            x, y = points.T * layouts[name].key_width
            found.append(Trace(word, x, y, np.rint(1000 * np.arange(len(x)) / rate).astype(np.int32), name))
        return found


def load_rows(keys: SwipeKeys) -> dict[str, Rows]:
    """The rows of every split that has any that are fixed.

    Raises:
        ConfigurationError: a file cannot be read, has a word that cannot be typed, or no trace of a split.
    """
    traces = {path: read_file(keys, path) for path in dict.fromkeys(keys.files.values())}
    if keys.traces_file is None and len(keys.files) > 1:
        warn_of_duplicates({split: traces[path][0] for split, path in keys.files.items()})
    found = {split: rows_of(keys, split, *traces[path]) for split, path in keys.files.items()}
    return found | {split: drawn_rows(keys, split) for split in SEEDS if split not in found}


def rows_to_predict(keys: SwipeKeys, path: str | Path) -> Rows:
    """All rows of a file or of a folder of traces, whose words may be missing.

    Raises:
        ConfigurationError: the file cannot be read, has a word that cannot be typed, or a layout that is not the run's.
    """
    traces, numbers = read_file(keys, str(path))
    return chosen_rows(keys, traces, numbers, range(len(traces)))


def read_file(keys: SwipeKeys, path: str) -> tuple[Sequence[Trace], list[int]]:
    """The traces of a file of rows, or of a folder that ``write_store`` wrote, and their numbers."""
    if Path(located(path)).is_dir():
        with refusing("traces_file", path):
            store = TraceStore(located(path))
        check_layouts(keys, store.layouts, path)
        return store, store.row_numbers.tolist()
    layouts = Layouts(keys.layouts)
    found = list(read_traces(located(path), layouts, next(iter(keys.layouts))))
    check_layouts(keys, {trace.layout: layouts[trace.layout] for _, trace in found}, path)
    if not found:
        raise ConfigurationError(f"A file of traces has at least one row; got none in {path}: check the path.")
    return [trace for _, trace in found], [number for number, _ in found]


def check_layouts(keys: SwipeKeys, found: Mapping[str, Layout], path: str) -> None:
    """Refuse traces on layouts that are not the run's, or whose keys lie elsewhere than those of the run's."""
    for name, layout in found.items():
        own = keys.layouts.get(name)
        if own is None:
            raise ConfigurationError(
                f"Key 'layout' names the layouts of all traces; got {', '.join(keys.layouts)}, and {path} has traces "
                f"on {name!r}: add it."
            )
        if (own.keys, own.alphabet) != (layout.keys, layout.alphabet):
            raise ConfigurationError(
                f"Key 'layout' names the layouts of all traces; got another {name!r} than that of {path}: give the "
                "layout that the traces were drawn on."
            )


def rows_of(keys: SwipeKeys, split: str, traces: Sequence[Trace], numbers: list[int]) -> Rows:
    """The rows of a split, without bad swipes in training if there are limits."""
    words = words_of(traces)
    if "" in words:
        raise ConfigurationError(
            f"A row of key {keys.split_keys[split]!r} has a word; got none in row {numbers[words.index('')]}: add it, "
            "or leave out the row."
        )
    chosen = [n for n, word in enumerate(words) if keys.traces_file is None or split_of(word) == split]
    if split == "train" and keys.limits is not None:
        reports = find_bad(trace_statistics((traces[n] for n in chosen), keys.layouts), keys.limits)
        for report in reports:
            logger.info("%s", report)
        chosen = [chosen[k] for k in good(reports)]
    if not chosen:
        raise ConfigurationError(
            f"Key {keys.split_keys[split]!r} has traces of every split; got none for {split}: give more rows, or a "
            "file for each split."
        )
    return chosen_rows(keys, traces, numbers, chosen)


def chosen_rows(keys: SwipeKeys, traces: Sequence[Trace], numbers: list[int], chosen: Sequence[int]) -> Rows:
    """Some of the traces as rows."""
    words = words_of(traces)
    layouts = traces.layout_names if isinstance(traces, TraceStore) else [trace.layout for trace in traces]
    points = ResampledTraces(traces, chosen, keys.layouts, keys.config.rate)
    return Rows([words[n] for n in chosen], [layouts[n] for n in chosen], points, [numbers[n] for n in chosen])


def words_of(traces: Sequence[Trace]) -> list[str]:
    """The word of each trace; the points of a folder of traces are not read."""
    return traces.words if isinstance(traces, TraceStore) else [trace.word for trace in traces]


def warn_of_duplicates(splits: Mapping[str, Sequence[Trace]]) -> None:
    """Warn of traces that are in several splits."""
    if found := duplicates(splits):
        first = ", ".join(f"{place.split} {place.index}" for place in found[0])
        logger.warning("%d traces are in several splits, first %r (%s).", len(found), found[0][0].word, first)


def drawn_rows(keys: SwipeKeys, split: str) -> Rows:
    """Synthetic traces of words that are not trained on, every layout equally often."""
    rng = np.random.default_rng(SEEDS[split])
    words, layouts, points, numbers = [], [], [], []
    shares = np.array_split(np.arange(keys.evaluation_traces), len(keys.layouts))
    for (name, layout), some in zip(keys.layouts.items(), shares, strict=True):
        held_out = words_to_draw(keys.words[name], split)
        check_words_to_draw(held_out, split, name)
        order = rng.permutation(len(held_out))  # words are sorted: the first ones begin with the first letters
        drawn = [held_out[index] for index in np.resize(order, len(some))]
        words += drawn
        layouts += [name] * len(drawn)
        points += synthetic_points(drawn, layout, keys.config.rate, int(rng.integers(2**31)))
        numbers += some.tolist()
    return Rows(words, layouts, points, numbers)
