"""A lexicon in which the words that begin and end near two points are found without looking at the others."""

from collections.abc import Sequence

import numpy as np

from adapters import ConfigurationError
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.keyboards.layout import Layout

RADIUS = 1.5
"""How far a trace's ends may be from the centres of a word's first and last key, in key widths. Of the real swipes,
95 % begin within 1 and end within 1.5."""


class WordsByEnds:
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

    def near(self, trace: np.ndarray) -> np.ndarray:
        """Numbers of the words whose first and last key are near a trace's (points, 2) ends; of all if none is."""
        begins, ends = (np.linalg.norm(self.centres - end, axis=1) <= RADIUS for end in (trace[0], trace[-1]))
        pairs = np.flatnonzero(begins[:, None] & ends)  # of letters
        found = [np.arange(self.starts[pair], self.starts[pair + 1]) for pair in pairs]
        numbers = np.concatenate([np.arange(0), *found])
        return numbers if len(numbers) else np.arange(len(self.words))

    def best(self, numbers: np.ndarray, logits: np.ndarray, language_weight: float, count: int) -> list[Candidate]:
        """The likeliest of some words.

        Args:
            numbers: (found,) of words.
            logits: (found,), of the trace given the word.
            language_weight: what a word's log-frequency adds to them; the more frequent of equal words comes first.
            count: the most candidates. Their log-probabilities are normalised over all words that were found.
        """
        log_frequencies = self.log_frequencies[numbers].astype(np.float64)
        logits = logits + language_weight * log_frequencies
        logits = logits - np.logaddexp.reduce(logits)
        best = np.lexsort((-log_frequencies, -logits))[:count]
        return [Candidate(self.words[numbers[index]], float(logits[index])) for index in best]
