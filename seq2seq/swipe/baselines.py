"""Baselines that need no training: shape templates of the words, and the string of the nearest keys."""

from collections.abc import Callable, Mapping

from seq2seq.swipe.data import SwipeData
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.nearest_keys import nearest_key_candidates
from seq2seq.swipe.decoding.templates import template_candidates
from seq2seq.swipe.metrics import scores
from seq2seq.workload import Baseline, Prepared

DECODERS: Mapping[str, tuple[str, Callable[..., list[list[Candidate]]]]] = {
    "template": ("shape templates (SHARK2)", template_candidates),
    "nearest_keys": ("nearest keys and edit distance", nearest_key_candidates),
}


def swipe_baselines() -> dict[str, Baseline]:
    """The baselines by name."""

    def measured(decode: Callable[..., list[list[Candidate]]]) -> Callable[[Prepared, str], dict[str, float]]:
        def measure(prepared: Prepared, split: str) -> dict[str, float]:
            found = scores(rows_of(prepared.data, split, decode))
            return {**found, "average_metrics": found["swipe_mrr"]}

        return measure

    return {name: Baseline(label, measured(decode)) for name, (label, decode) in DECODERS.items()}


def rows_of(data: SwipeData, split: str, decode: Callable[..., list[list[Candidate]]]) -> list[dict]:
    """The candidates that a decoder of traces finds, as rows of predictions."""
    rows, found = data.fixed[split], []
    for name, layout in data.keys.layouts.items():
        numbers = [n for n, own in enumerate(rows.layouts) if own == name]
        lexicon = data.keys.words[name]
        candidates = decode([rows.points[n] for n in numbers], lexicon.words, layout, lexicon.log_frequencies)
        found += [
            {"index": rows.numbers[n], "word": rows.words[n], "layout": name, "candidates": [list(c) for c in each]}
            for n, each in zip(numbers, candidates, strict=True)
        ]
    return found
