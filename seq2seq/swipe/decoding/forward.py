"""CTC's forward algorithm over a tree of prefixes: the exact log-probability of many words at once (Graves 2006).

Words with a common beginning share its computation. A node n has the log-probability b of the alignments so far that
give its prefix and end in blank, and e of those that end in its last letter; a frame y makes of them

    b'(n) = (b(n) + e(n)) y(blank)
    e'(n) = (e(n) + b(parent) + (e(parent) if its letter is another)) y(letter of n)

in natural logarithms, float64. A prefix of d letters needs d frames, so that frame t (from 0) concerns nodes of depth
t + 1 at most.

    n nodes, B batch, T time, L letters; symbol 0 is blank, 1 + i is letter i
"""

from typing import NamedTuple

import numpy as np

from adapters import ConfigurationError
from seq2seq.swipe.lexicon.trie import PackedTrie


class PrefixTree(NamedTuple):
    """Nodes in order of depth, (n,) int64 each.

    Args:
        rows: the row of the batch.
        symbols: what leads to the node, 0 to a root.
        parents: the parent's place, its own for a root.
        depths: the number of letters, 0 of a root.
    """

    rows: np.ndarray
    symbols: np.ndarray
    parents: np.ndarray
    depths: np.ndarray


def frames_of(log_probs: np.ndarray, lengths: np.ndarray, alphabet: str, trie: PackedTrie | None = None) -> np.ndarray:
    """The frames (B, T, 1 + L) in float64; those behind a row's end are certain blanks, which change no word.

    Args:
        log_probs: (B, T, 1 + L).
        lengths: (B,).

    Raises:
        ConfigurationError: the shapes do not belong together, or a lexicon is of another alphabet.
    """
    shape, lengths = np.shape(log_probs), np.asarray(lengths)
    if len(shape) != 3 or shape[2] != 1 + len(alphabet) or lengths.shape != shape[:1]:
        raise ConfigurationError(
            "Log-probabilities are (batch, time, 1 + letters), with (batch,) lengths; got shapes "
            f"{shape} and {lengths.shape} for {len(alphabet)} letters: give the alphabet of the model."
        )
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= shape[1]:
        raise ConfigurationError(
            f"Lengths are within 0 and the number of frames {shape[1]}; got {lengths.min()} to {lengths.max()}: "
            "give frames, not points."
        )
    if trie is not None and trie.alphabet != alphabet:
        raise ConfigurationError(
            f"A lexicon has the alphabet of the model {alphabet!r}; got {trie.alphabet!r}: build it for this layout."
        )
    frames = np.array(log_probs, np.float64)
    if np.isnan(frames).any():
        raise ConfigurationError("Log-probabilities are numbers; got nan: look at the model's loss.")
    frames[np.arange(shape[1]) >= lengths[:, None]] = [0.0, *[-np.inf] * len(alphabet)]
    return frames


def forward(frames: np.ndarray, tree: PrefixTree) -> np.ndarray:
    """The log-probability of each node's prefix as the whole word, (n,) float64.

    Args:
        frames: (B, T, 1 + L) float64, see ``frames_of``.
    """
    count = len(tree.rows)
    repeats = tree.symbols == tree.symbols[tree.parents]  # no blank between means the same letter, not another one
    from_parent = np.where(repeats, tree.parents, tree.parents + count)  # a place in (blank, total)
    roots = int(np.searchsorted(tree.depths, 0, side="right"))
    from_parent[:roots] = 2 * count
    limits = np.searchsorted(tree.depths, np.arange(1, frames.shape[1] + 1), side="right")
    state = np.full(2 * count + 1, -np.inf)  # blank, total, and nothing
    blank, total = state[:count], state[count:-1]
    letter = np.full(count, -np.inf)
    blank[:roots] = total[:roots] = 0.0
    for time, limit in enumerate(limits):
        rows, symbols = tree.rows[:limit], tree.symbols[:limit]
        entered = np.logaddexp(letter[:limit], state[from_parent[:limit]])
        letter[:limit] = entered + frames[rows, time, symbols]
        blank[:limit] = total[:limit] + frames[rows, time, 0]
        np.logaddexp(blank[:limit], letter[:limit], out=total[:limit])
    return total


def word_scores(frames: np.ndarray, words: list[str], alphabet: str) -> np.ndarray:
    """The log-probability of one word for each row: (B, T, 1 + L), B words -> (B,) float64."""
    lengths = np.array([*map(len, words)], np.int64)
    depths, rows = np.nonzero(np.arange(lengths.max(initial=0) + 1)[:, None] <= lengths)  # one chain for each row
    places = np.full((lengths.max(initial=0) + 1, len(words)), -1)
    places[depths, rows] = np.arange(len(rows))
    symbols = np.array([alphabet.index(words[row][d - 1]) + 1 if d else 0 for d, row in zip(depths, rows, strict=True)])
    parents = places[np.maximum(depths - 1, 0), rows]
    return forward(frames, PrefixTree(rows, symbols, parents, depths))[places[lengths, np.arange(len(words))]]
