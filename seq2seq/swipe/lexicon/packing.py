"""Sorted words as the arrays of a packed trie; ``seq2seq.swipe.lexicon.trie`` says what they hold."""

import numpy as np

from adapters import ConfigurationError

MAX_NODES = 2**32 - 1


def letter_table(words: list[str], alphabet: str) -> np.ndarray:
    """Words as places in the alphabet, (words, longest) uint8; behind the end stands the alphabet's size.

    Raises:
        ConfigurationError: a word has a letter outside the alphabet.
    """
    lengths = np.array([*map(len, words)])
    codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
    known = np.array([*map(ord, alphabet)], np.uint32)
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    if wrong := np.flatnonzero(known[places] != codes).tolist():
        word = words[int(np.searchsorted(np.cumsum(lengths), wrong[0], side="right"))]
        raise ConfigurationError(
            f"The words of a trie have letters of its alphabet {alphabet!r}; got {word!r}: build the lexicon for the "
            "layout of this alphabet."
        )
    table = np.full((len(words), lengths.max()), len(alphabet), np.uint8)
    table[np.arange(lengths.max()) < lengths[:, None]] = places
    return table


def nodes_of(table: np.ndarray, end: int) -> np.ndarray:
    """``first`` and ``packed`` of sorted words, (2, nodes + 1) uint32.

    A word makes the nodes of those of its prefixes that the word before it does not have.

    Args:
        table: (words, longest) uint8, with ``end`` behind the end of a word.
    """
    lengths = (table != end).sum(1)
    shared = np.zeros(len(table), np.int64)  # letters that a word shares with the word before it
    shared[1:] = np.cumprod((table[1:] == table[:-1]) & (table[1:] != end), axis=1).sum(1)
    makers = [np.flatnonzero((shared < depth) & (lengths >= depth)) for depth in range(1, table.shape[1] + 1)]
    levels = [np.zeros(1, np.int64), *makers]  # the words that make the nodes of each depth, in order
    starts = np.cumsum([0, *map(len, levels)])  # the first node of each depth
    if starts[-1] > MAX_NODES:
        raise ConfigurationError(f"A trie has at most {MAX_NODES} nodes; got {starts[-1]}: keep fewer words.")
    nodes = np.empty((2, starts[-1] + 1), np.uint32)
    nodes[:, -1] = starts[-1], 0
    for depth, words in enumerate(levels):
        below = levels[depth + 1] if depth + 1 < len(levels) else np.empty(0, np.int64)
        letters = table[words, depth - 1] if depth else np.zeros(1, np.uint8)
        place = slice(starts[depth], starts[depth + 1])
        nodes[0, place] = starts[depth + 1] + np.searchsorted(below, words)
        nodes[1, place] = words << 8 | (lengths[words] == depth) << 7 | letters
    return nodes
