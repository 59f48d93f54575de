"""Baselines that need no training: shape templates of the words, and the string of the nearest keys."""

from collections.abc import Callable, Mapping

from seq2seq.swipe.data import SwipeData
from seq2seq.swipe.decoding.nearest_keys import NearestKeys
from seq2seq.swipe.decoding.templates import Templates
from seq2seq.swipe.decoding.words_by_ends import WordsByEnds
from seq2seq.swipe.metrics import scores
from seq2seq.workload import Baseline, Prepared

MATCHERS: Mapping[str, tuple[str, type[WordsByEnds]]] = {
    "template": ("shape templates (SHARK2)", Templates),
    "nearest_keys": ("nearest keys and edit distance", NearestKeys),
}


def swipe_baselines() -> dict[str, Baseline]:
    """The baselines by name."""

    def measured(matcher: type[WordsByEnds]) -> Callable[[Prepared, str], dict[str, float]]:
        def measure(prepared: Prepared, split: str) -> dict[str, float]:
            found = scores(rows_of(prepared.data, split, matcher))
            return {**found, "average_metrics": found["swipe_mrr"]}

        return measure

    return {name: Baseline(label, measured(matcher)) for name, (label, matcher) in MATCHERS.items()}


def rows_of(data: SwipeData, split: str, matcher: type[WordsByEnds]) -> list[dict]:
    """The candidates that a matcher of traces with words finds, as rows of predictions."""
    rows, found = data.fixed[split], []
    for name, layout in data.keys.layouts.items():
        numbers = [n for n, own in enumerate(rows.layouts) if own == name]
        lexicon = data.keys.words[name]
        words = matcher(lexicon.words, layout, lexicon.log_frequencies)
        candidates = [words.candidates(rows.points[n]) for n in numbers]
        found += [
            {"index": rows.numbers[n], "word": rows.words[n], "layout": name, "candidates": [list(c) for c in each]}
            for n, each in zip(numbers, candidates, strict=True)
        ]
    return found
