r"""Matching a trace with the words of a lexicon that begin and end near its ends; the others are not looked at.

How well a word w fits a trace u is what a subclass measures, as a logit; with the word's frequency f,

.. math:: p(w \mid u) \propto f_w^\lambda \exp(\ell_w(u)),

normalised over the words that were looked at.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from adapters import ConfigurationError
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.keyboards.layout import Layout

RADIUS = 1.5
"""How far a trace's ends may be from the centres of a word's first and last key, in key widths. Of the real swipes,
95 % begin within 1 and end within 1.5."""

LANGUAGE_WEIGHT = 0.5
r"""The :math:`\lambda` above: of both subclasses the best on one half of the words of the 777 real swipes of the
How-We-Swipe study, with a lexicon of 20,000 words."""


class WordsByEnds(ABC):
    """The words of a lexicon on a layout, sorted by their first and last letter.

    Args:
        words: distinct words of the layout's letters.
        log_frequencies: (words,), natural logarithms; None for equal ones.

    Raises:
        ConfigurationError: a word cannot be typed.
    """

    def __init__(self, words: Sequence[str], layout: Layout, log_frequencies: np.ndarray | None = None) -> None:
        number = {letter: place for place, letter in enumerate(layout.alphabet)}
        untypable = next((word for word in words if not word or not number.keys() >= {*word}), None)
        if untypable is not None or not words:
            raise ConfigurationError(
                f"Words to match traces with consist of the letters of layout {layout.name!r}, {layout.alphabet}; got "
                f"{'none' if untypable is None else repr(untypable)}: leave out what cannot be typed."
            )
        self.centres = layout.boxes[:, :2]  # (letters, 2)
        ends = np.array([number[word[0]] * len(number) + number[word[-1]] for word in words])
        order = np.argsort(ends, kind="stable")
        self.words = [words[index] for index in order]
        self.letters = [np.array([number[letter] for letter in word]) for word in self.words]
        self.log_frequencies = np.zeros(len(words), np.float32) if log_frequencies is None else log_frequencies[order]
        self.starts = np.searchsorted(ends[order], np.arange(len(number) ** 2 + 1))

    @abstractmethod
    def logits(self, trace: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """How well some words fit a trace (points, 2) in key widths: (numbers,), up to a constant."""

    def candidates(self, trace: np.ndarray, count: int = 4) -> list[Candidate]:
        """The likeliest words of a trace (points, 2) in key widths, the best first; more frequent ones of equal words.

        Their log-probabilities are normalised over all words near the trace's ends.
        """
        near = self.near(trace)
        log_frequencies = self.log_frequencies[near].astype(np.float64)
        logits = self.logits(trace, near) + LANGUAGE_WEIGHT * log_frequencies
        logits = logits - np.logaddexp.reduce(logits)
        best = np.lexsort((-log_frequencies, -logits))[:count]
        return [Candidate(self.words[near[index]], float(logits[index])) for index in best]

    def near(self, trace: np.ndarray) -> np.ndarray:
        """Numbers of the words whose first and last key are near a trace's (points, 2) ends; of all if none is."""
        begins, ends = (np.linalg.norm(self.centres - end, axis=1) <= RADIUS for end in (trace[0], trace[-1]))
        pairs = np.flatnonzero(begins[:, None] & ends)  # of letters
        found = [np.arange(self.starts[pair], self.starts[pair + 1]) for pair in pairs]
        numbers = np.concatenate([np.arange(0), *found])
        return numbers if len(numbers) else np.arange(len(self.words))
