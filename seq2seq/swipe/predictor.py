"""From a trace to suggestions: what the page and other applications call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.traces.trace import Trace


class Suggestion(NamedTuple):
    """A word that a trace may mean.

    Args:
        word: its letters, as they are typed.
        displayed: as it is written, with apostrophes and capitals.
        probability: its share of the scores of all words that the beam found.
    """

    word: str
    displayed: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a model made of a trace.

    Args:
        suggestions: the best first.
        posterior: (time, 1 + letters) float32 between 0 and 1, where the model reads which letter of ``alphabet``. CTC:
            the posterior, its blank first. Encoder-decoder: the cross-attention of the best word's letters, relative to
            the largest of each letter, the end of the word first.
        points: (time, 2) float32, the trace as the model sees it, in key widths.
        alphabet: the model's letters.
        milliseconds: from the trace to the suggestions.
    """

    suggestions: list[Suggestion]
    posterior: np.ndarray
    points: np.ndarray
    alphabet: str
    milliseconds: float


class Predicts(Protocol):
    """A model with its layouts and lexicons, None for those that are switched off."""

    layouts: Mapping[str, Layout]
    tries: Mapping[str, object]
    summary: Mapping[str, int]

    def predict(self, trace: Trace, lexicon: str | None, candidates: int = 4) -> Prediction: ...
