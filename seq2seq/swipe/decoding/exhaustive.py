"""CTC decoding by the exact scores of a lexicon's words: of all of them, or of those under the prefixes of a beam.

A beam's score lacks the alignments whose prefixes were dropped on the way, and a prefix of its last beam may be no
word. Scoring all words is what a beam is measured against; scoring those that begin with a prefix of the last beam is
exact for them, and much faster.
"""

import numpy as np

from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.ctc import check_options, largest, search
from seq2seq.swipe.decoding.forward import PrefixTree, forward, frames_of
from seq2seq.swipe.lexicon.trie import PackedTrie


def exhaustive_ctc(
    log_probs: np.ndarray,
    lengths: np.ndarray,
    alphabet: str,
    trie: PackedTrie,
    candidates: int = 4,
    language_weight: float = 0.0,
) -> list[list[Candidate]]:
    """The best words of each row among all words of the lexicon; the arguments are those of ``beam_ctc``.

    Raises:
        ConfigurationError: the shapes do not belong together, or an option is out of its range.
    """
    check_options(candidates=candidates)
    frames = frames_of(log_probs, lengths, alphabet, trie)
    nodes = np.arange(len(trie.first) - 1)
    tree = tree_of(trie, nodes)
    return [best_words(row[None], nodes, tree, trie, candidates, language_weight) for row in frames]


def beam_then_exhaustive_ctc(
    log_probs: np.ndarray,
    lengths: np.ndarray,
    alphabet: str,
    trie: PackedTrie,
    beam: int = 32,
    candidates: int = 4,
    language_weight: float = 0.0,
    threshold: float | None = None,
) -> list[list[Candidate]]:
    """The best words of each row among those that begin with a prefix of the last beam, with their exact scores.

    The arguments are those of ``beam_ctc``.

    Raises:
        ConfigurationError: the shapes do not belong together, or an option is out of its range.
    """
    check_options(beam, candidates, threshold)
    frames = frames_of(log_probs, lengths, alphabet, trie)
    prefixes = search(frames, trie, beam, threshold, language_weight).hypotheses.prefix
    found = []
    for row, survivors in zip(frames, prefixes, strict=True):
        nodes = trie.related(survivors[survivors >= 0])
        found.append(best_words(row[None], nodes, tree_of(trie, nodes), trie, candidates, language_weight))
    return found


def tree_of(trie: PackedTrie, nodes: np.ndarray) -> PrefixTree:
    """Nodes of a trie as one tree for row 0; they are sorted and have their parents among them."""
    parents = np.searchsorted(nodes, np.maximum(trie.parents(nodes), trie.root))
    symbols = np.where(nodes == trie.root, 0, trie.letters_to(nodes) + 1)
    return PrefixTree(np.zeros(len(nodes), np.int64), symbols, parents, trie.depths(nodes))


def best_words(
    frames: np.ndarray, nodes: np.ndarray, tree: PrefixTree, trie: PackedTrie, candidates: int, language_weight: float
) -> list[Candidate]:
    """The best words that end at some nodes, for one row of frames (1, T, 1 + L)."""
    words = trie.words_at(nodes)
    scores = forward(frames, tree)[words >= 0]
    words = words[words >= 0]
    places, scores = largest((scores + language_weight * trie.log_frequencies[words])[None], candidates)
    return [
        Candidate(trie.word(int(words[place])), float(score))
        for place, score in zip(places[0], scores[0], strict=True)
        if score > -np.inf
    ]
