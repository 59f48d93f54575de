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
for templates, and the logit of a word is :math:`-D / \tau`, see ``words_by_ends``.
"""

from collections.abc import Sequence

import numpy as np

from seq2seq.swipe.decoding.words_by_ends import WordsByEnds
from seq2seq.swipe.keyboards.layout import Layout

PASSED, SUBSTITUTED, MISSING = 0.3, 0.5, 1.0
"""Costs of a letter of the string, of a substitution by its distance in key widths, and of a letter of the word."""

TEMPERATURE = 0.15
r"""The :math:`\tau` above. It and the costs have the best accuracy on one half of the words of the 777 real swipes of
the How-We-Swipe study, with a lexicon of 20,000 words."""


class NearestKeys(WordsByEnds):
    """The words of a lexicon as strings of keys."""

    def __init__(self, words: Sequence[str], layout: Layout, log_frequencies: np.ndarray | None = None) -> None:
        super().__init__(words, layout, log_frequencies)
        strings = [collapsed(letters) for letters in self.letters]
        self.lengths = np.array([len(string) for string in strings])
        self.strings = np.zeros((len(words), self.lengths.max()), np.int64)
        for row, string in enumerate(strings):
            self.strings[row, : len(string)] = string
        between = self.centres[:, None] - self.centres
        self.substitutions = SUBSTITUTED * np.linalg.norm(between, axis=2)  # (letters, letters)

    def logits(self, trace: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        return -self.distances(trace, numbers) / TEMPERATURE

    def distances(self, trace: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The edit distances of some words from the trace's string of keys, (numbers,)."""
        squares = ((trace[:, None] - self.centres) ** 2).sum(2)  # (points, letters)
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


def collapsed(letters: np.ndarray) -> np.ndarray:
    """Letters (letters,) without those that repeat the one before."""
    return letters[np.diff(letters, prepend=-1) != 0]
