r"""Nearest keys: the word whose letters are nearest, by an edit distance, to the string of keys that a trace passes.

The string has the key nearest to each point, with repeats collapsed: "hello" may give "hgfredfghjklo". A word, with its
double letters collapsed too, is compared with it by the least cost of turning the string into the word, where

- a letter of the string that is not in the word costs ``PASSED``: a finger passes keys on its way, so that most of the
  string is of this kind, and a word that is a subsequence of the string costs nothing else;
- a letter of the word that is not in the string costs 1: the finger should have been there;
- substituting a key costs ``SUBSTITUTED`` times their distance in key widths: the finger was near.

A row of the table, :math:`D_i` over the prefixes of the word, follows from the one before for all words at once,

.. math:: T_{ij} = \min(D_{i-1,j} + c_{passed}, D_{i-1,j-1} + c_{ij}), \qquad D_{ij} = \min_{k \le j} T_{ik} + (j - k),

the latter as a cumulative minimum of :math:`T_{ij} - j`. Words whose ends are far from those of the trace are pruned as
for templates. Log-probabilities are those of :math:`p(w) \propto f_w^\lambda \exp(-D / \tau)` over the others.
"""

from collections.abc import Sequence

import numpy as np

from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.words_by_ends import WordsByEnds
from seq2seq.swipe.keyboards.layout import Layout

PASSED, SUBSTITUTED, MISSING = 0.3, 0.5, 1.0
"""Costs of a letter of the string, of a substitution by its distance in key widths, and of a letter of the word."""

TEMPERATURE, LANGUAGE_WEIGHT = 0.15, 0.5
r"""The :math:`\tau` and :math:`\lambda` above. They and the costs have the best accuracy on one half of the words of
the 777 real swipes of the How-We-Swipe study, with a lexicon of 20,000 words."""


class NearestKeys:
    """The words of a lexicon as strings of keys.

    Args:
        words: distinct words of the layout's letters.
        log_frequencies: (words,), natural logarithms; None for equal ones.

    Raises:
        ConfigurationError: a word cannot be typed.
    """

    def __init__(self, words: Sequence[str], layout: Layout, log_frequencies: np.ndarray | None = None) -> None:
        self.lexicon = WordsByEnds(words, layout, log_frequencies)
        strings = [collapsed(letters) for letters in self.lexicon.letters]
        self.lengths = np.array([len(string) for string in strings])
        self.strings = np.zeros((len(words), self.lengths.max()), np.int64)
        for row, string in enumerate(strings):
            self.strings[row, : len(string)] = string
        between = self.lexicon.centres[:, None] - self.lexicon.centres
        self.substitutions = SUBSTITUTED * np.linalg.norm(between, axis=2)  # (letters, letters)

    def candidates(
        self,
        trace: np.ndarray,
        count: int = 4,
        temperature: float = TEMPERATURE,
        language_weight: float = LANGUAGE_WEIGHT,
    ) -> list[Candidate]:
        """The likeliest words of a trace (points, 2) in key widths, the best first."""
        near = self.lexicon.near(trace)
        return self.lexicon.best(near, -self.distances(trace, near) / temperature, language_weight, count)

    def distances(self, trace: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The edit distances of some words from the trace's string of keys, (numbers,)."""
        squares = ((trace[:, None] - self.lexicon.centres) ** 2).sum(2)  # (points, letters)
        lengths = self.lengths[numbers]
        strings = self.strings[numbers, : lengths.max()]  # (numbers, longest)
        missing = MISSING * np.arange(strings.shape[1] + 1, dtype=np.float32)
        table = np.tile(missing, (len(numbers), 1))  # D of the empty string
        for key in collapsed(squares.argmin(1)):
            substituted = table[:, :-1] + self.substitutions[key][strings]
            table = table + PASSED
            np.minimum(table[:, 1:], substituted, out=table[:, 1:])
            table = np.minimum.accumulate(table - missing, axis=1) + missing
        return table[np.arange(len(numbers)), lengths]


def nearest_key_candidates(
    points: Sequence[np.ndarray],
    words: Sequence[str],
    layout: Layout,
    log_frequencies: np.ndarray | None = None,
    candidates: int = 4,
) -> list[list[Candidate]]:
    """The likeliest words of each trace by the string of its nearest keys.

    Args:
        points: traces (time, 2), in key widths.
        words: distinct words of the layout's letters.
        log_frequencies: (words,), natural logarithms; None for equal ones.
        candidates: the most words of a trace.
    """
    keys = NearestKeys(words, layout, log_frequencies)
    return [keys.candidates(trace, candidates) for trace in points]


def collapsed(letters: np.ndarray) -> np.ndarray:
    """Letters (letters,) without those that repeat the one before."""
    return letters[np.diff(letters, prepend=-1) != 0]
