"""Re-ranking of strings that are no words by their edit distance to words of a lexicon (Levenshtein 1966).

A decoder without a lexicon returns strings s with log-probabilities. A string that is a word stays; another one stands
for all words w within a few edits d(s, w), each of which costs some log-probability:

    score(w) = max_s  log p(s) - edit_cost d(s, w) + language_weight log_frequency(w)

The distances of all words are computed together, one level of the trie after another: a node's row has the distances of
its prefix to all beginnings of s, and follows from its parent's row,

    row[j] = min(parent[j] + 1, parent[j - 1] + (s[j - 1] is another letter), row[j - 1] + 1)

    n nodes of a level, m letters of s
"""

from collections.abc import Sequence

import numpy as np

from adapters.validation import refuse
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.ctc import check_options
from seq2seq.swipe.lexicon.trie import PackedTrie


def rerank(
    rows: Sequence[Sequence[Candidate]],
    trie: PackedTrie,
    candidates: int = 4,
    edits: int = 2,
    edit_cost: float = 4.0,
    language_weight: float = 0.0,
) -> list[list[Candidate]]:
    """The best words of each row, given its candidates with or without words among them.

    Args:
        rows: a list of candidates for each trace.
        candidates: words that are returned; fewer if there are fewer within ``edits``.
        edits: the largest distance of a word to a string.
        edit_cost: natural logarithm that an edit costs, at least 0.
        language_weight: factor of a word's log-frequency, which is added to its score.

    Raises:
        ConfigurationError: an option is out of its range.
    """
    check_options(candidates=candidates)
    for key, value in (("edits", edits), ("edit_cost", edit_cost)):
        if not value >= 0:
            refuse(key, "must be at least 0", value, "2 edits that cost 4 each are typical", "re-ranking")
    found = []
    for row in rows:
        scores: dict[int, float] = {}
        for string, log_probability in row:
            words, distances = words_within(string, trie, 0 if string in trie else edits)
            shares = language_weight * trie.log_frequencies[words].astype(np.float64)
            for word, score in zip(words.tolist(), log_probability - edit_cost * distances + shares, strict=True):
                scores[word] = max(score, scores.get(word, -np.inf))
        best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:candidates]
        found.append([Candidate(trie.word(word), float(score)) for word, score in best])
    return found


def words_within(string: str, trie: PackedTrie, edits: int) -> tuple[np.ndarray, np.ndarray]:
    """The words within some edits of a string, and their distances: (words,) int64 each, in the lexicon's order."""
    letters = np.array([trie.alphabet.find(letter) for letter in string], np.int64)
    steps = np.arange(len(letters) + 1)
    nodes, rows = np.array([trie.root]), steps[None]  # (n,), (n, m + 1)
    words, distances = [], []
    while nodes.size:
        near = rows.min(1) <= edits
        nodes, rows = nodes[near], rows[near]
        ends = (trie.words_at(nodes) >= 0) & (rows[:, -1] <= edits)
        words.append(trie.words_at(nodes[ends]))
        distances.append(rows[ends, -1])
        parents, following, nodes = trie.extensions(nodes)
        above, differs = rows[parents], following[:, None] != letters
        without_insertion = above + 1
        without_insertion[:, 1:] = np.minimum(without_insertion[:, 1:], above[:, :-1] + differs)
        rows = np.minimum.accumulate(without_insertion - steps, axis=1) + steps
    found = np.concatenate(words)
    order = np.argsort(found)
    return found[order], np.concatenate(distances)[order]
