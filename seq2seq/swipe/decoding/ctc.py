"""Words of CTC's frame probabilities: the best path, and prefix beam search (Graves 2006, Hannun et al. 2014).

A frame gives log-probabilities of blank (0) and of letters (1 + i). An alignment is a symbol for each frame; its word
is what is left after merging repetitions and removing blanks. Each prefix p of the beam has the log-probability b(p) of
the alignments so far that end in blank and e(p) of those that end in its last letter. A frame y makes of them

    b'(p)  = (b(p) + e(p)) y(blank)
    e'(p)  = e(p) y(last letter of p)
    e'(pc) = (b(p) + (e(p) if p does not end in c)) y(c)        for each letter c that the lexicon allows

and the last two are added up if pc is itself in the beam. Everything is in natural logarithms, float64, and over the
batch, the beam and the letters at once: the only loop is over time.

    B batch, T time, K hypotheses of the beam, L letters
"""

from typing import NamedTuple, Protocol

import numpy as np

from adapters.validation import refuse
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.forward import frames_of, word_scores
from seq2seq.swipe.lexicon.trie import PackedTrie

NONE, DEAD = -2, -1
"""The parent of the empty prefix, and the identity of a hypothesis of probability zero."""


class Prefixes(Protocol):
    """What prefixes there are: each has an identity, an int64 of at least 0.

    Those of a lexicon also have ``best_frequencies``: the log-frequency of the most frequent word with each beginning.
    """

    root: int

    def extensions(self, prefixes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All prefixes with one more letter: (n,) -> places in ``prefixes``, letters and identities, (m,) each.

        They are in order of places and letters. A negative prefix has none.
        """


class AllPrefixes:
    """All strings of letters, by hashes of 63 bits: the odds that a row mistakes one for another are below 1e-12."""

    root = 0

    def __init__(self, letters: int) -> None:
        self.letters = letters

    def extensions(self, prefixes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See ``Prefixes``; the identities are SplitMix64's finaliser of an odd multiple plus the letter."""
        places = np.repeat(np.flatnonzero(prefixes >= 0), self.letters)
        letters = np.tile(np.arange(self.letters), len(places) // self.letters)
        mixed = prefixes[places].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + (letters + 1).astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return places, letters, ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


class Hypotheses(NamedTuple):
    """The beams of a batch, (B, K) each.

    Args:
        blank, letter: log-probability of the alignments that end in blank, and in the last letter.
        prefix, parent: identities of the prefix, and of the prefix without its last letter.
        last: the last letter, -1 of the empty prefix.
    """

    blank: np.ndarray
    letter: np.ndarray
    prefix: np.ndarray
    parent: np.ndarray
    last: np.ndarray


class Beam(NamedTuple):
    """The hypotheses behind the last frame, and for each frame where each came from (T of (B, K)).

    Args:
        sources: the hypothesis of the frame before.
        added: the letter that the frame added, -1 if none.
    """

    hypotheses: Hypotheses
    sources: list[np.ndarray]
    added: list[np.ndarray]


def greedy_ctc(log_probs: np.ndarray, lengths: np.ndarray, alphabet: str) -> list[list[Candidate]]:
    """The word of the best alignment of each row, with its log-probability summed over all alignments.

    Args:
        log_probs: (batch, time, 1 + letters), natural logarithms.
        lengths: (batch,), frames of each row.

    Raises:
        ConfigurationError: the shapes do not belong together.
    """
    frames = frames_of(log_probs, lengths, alphabet)
    path = frames.argmax(2)  # (B, T)
    new = (path > 0) & (np.diff(path, axis=1, prepend=0) != 0)
    words = ["".join(alphabet[symbol - 1] for symbol in row[kept]) for row, kept in zip(path, new, strict=True)]
    scores = word_scores(frames, words, alphabet)
    return [[Candidate(word, float(score))] for word, score in zip(words, scores, strict=True)]


def beam_ctc(
    log_probs: np.ndarray,
    lengths: np.ndarray,
    alphabet: str,
    beam: int = 32,
    candidates: int = 4,
    trie: PackedTrie | None = None,
    language_weight: float = 0.0,
    threshold: float | None = None,
) -> list[list[Candidate]]:
    """The best words of each row by prefix beam search, ranked by their log-probability summed over alignments.

    Args:
        log_probs: (batch, time, 1 + letters), natural logarithms.
        lengths: (batch,), frames of each row.
        beam: prefixes that are kept after each frame.
        candidates: words that are returned; with a lexicon there are fewer if few prefixes of the beam are words.
        trie: the lexicon; only its words are returned. Any string of letters by default.
        language_weight: factor of a word's log-frequency, which is added to its score.
        threshold: also drop prefixes whose score is below that of the best by more than this: the log-probability and,
            with a lexicon, the share of the most frequent word that begins with the prefix.

    Raises:
        ConfigurationError: the shapes do not belong together, or an option is out of its range.
    """
    check_options(beam, candidates, threshold)
    frames = frames_of(log_probs, lengths, alphabet, trie)
    found = search(frames, trie or AllPrefixes(len(alphabet)), beam, threshold, language_weight if trie else 0.0)
    scores = np.logaddexp(found.hypotheses.blank, found.hypotheses.letter)
    if trie is not None:
        words = trie.words_at(found.hypotheses.prefix)
        weighted = scores + language_weight * trie.log_frequencies[words]
        scores = np.where(words >= 0, weighted, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :candidates]
    letters = letters_of(found, order)
    return [
        [
            Candidate("".join(alphabet[letter] for letter in letters[row, k] if letter >= 0), float(scores[row, slot]))
            for k, slot in enumerate(slots)
            if scores[row, slot] > -np.inf
        ]
        for row, slots in enumerate(order)
    ]


def check_options(beam: int = 1, candidates: int = 1, threshold: float | None = None) -> None:
    """Refuse options of decoding that are out of their range."""
    for key, value in (("beam", beam), ("candidates", candidates)):
        if value < 1:
            refuse(key, "must be at least 1", value, "32 and 4 are typical", "decoding")
    if threshold is not None and not threshold >= 0:
        refuse("threshold", "must be null or at least 0", threshold, "10 is typical", "decoding")


def search(frames: np.ndarray, prefixes: Prefixes, beam: int, threshold: float | None, weight: float = 0.0) -> Beam:
    """Prefix beam search.

    Args:
        frames: (B, T, 1 + L) float64, see ``frames_of``.
        beam, threshold: as in ``beam_ctc``.
        weight: of the log-frequency of the most frequent word that begins with a prefix, by which prefixes are chosen:
            without it, those of frequent words are dropped before their frequency counts.
    """
    batch = len(frames)
    none, root = np.full((batch, 1), NONE), np.full((batch, 1), prefixes.root)
    kept = Hypotheses(np.zeros((batch, 1)), np.full((batch, 1), -np.inf), root, none, np.full((batch, 1), -1))
    sources, added = [], []
    for time in range(frames.shape[1]):
        kept, source, letter = advanced(kept, frames[:, time], prefixes, beam, threshold, weight)
        sources.append(source)
        added.append(letter)
    return Beam(kept, sources, added)


def advanced(
    old: Hypotheses, frame: np.ndarray, prefixes: Prefixes, beam: int, threshold: float | None, weight: float
) -> tuple[Hypotheses, np.ndarray, np.ndarray]:
    """The hypotheses behind a frame, (B, 1 + L), with their sources and the added letters, as in ``Beam``."""
    batch, width = old.prefix.shape
    rows = np.arange(batch)[:, None]
    total = np.logaddexp(old.blank, old.letter)
    blank = total + frame[:, :1]
    repeated = np.where(old.last >= 0, old.letter + frame[rows, old.last + 1], -np.inf)

    place, letter, prefix = prefixes.extensions(old.prefix.reshape(-1))  # (m,), place: row * K + hypothesis
    before = np.where(letter == old.last.reshape(-1)[place], old.blank.reshape(-1)[place], total.reshape(-1)[place])
    longer = before + frame[place // width, letter + 1]

    # A hypothesis whose parent is in the beam too takes over that parent's extension.
    row, child, parent = np.nonzero(old.parent[:, :, None] == old.prefix[:, None, :])
    wanted = (row * width + parent) * frame.shape[1] + old.last[row, child]
    same = np.searchsorted(place * frame.shape[1] + letter, wanted)
    repeated[row, child] = np.logaddexp(repeated[row, child], longer[same])
    longer[same] = -np.inf

    stays, goes = np.logaddexp(blank, repeated), longer
    if weight:
        stays = stays + weight * prefixes.best_frequencies[old.prefix]
        goes = longer + weight * prefixes.best_frequencies[prefix]
    floor = stays.min(1) if width == beam else np.full(batch, -np.inf)  # whatever is below it is not chosen
    kept = goes > floor[place // width]
    place, letter, prefix, longer, goes = place[kept], letter[kept], prefix[kept], longer[kept], goes[kept]

    row = place // width
    column = np.arange(len(row)) - np.searchsorted(row, np.arange(batch))[row]
    count = column.max(initial=-1) + 1
    scores = np.full((batch, width + count), -np.inf)
    scores[:, :width], scores[row, width + column] = stays, goes
    table = np.zeros(scores.shape, np.int64)  # a place among all B * K that stay and all that are longer
    table[:, :width], table[row, width + column] = rows * width + np.arange(width), batch * width + np.arange(len(row))

    chosen, best = largest(scores, beam)
    if threshold is not None:
        best = np.where(best < best.max(1, keepdims=True) - threshold, -np.inf, best)
    alive = best > -np.inf
    some = alive.any(0)  # a row with fewer hypotheses than others has dead ones
    some[0] = True
    alive, chosen = alive[:, some], np.take_along_axis(table, chosen[:, some], 1)

    def pick(staying: np.ndarray, extended: np.ndarray, dead: float) -> np.ndarray:
        return np.where(alive, np.concatenate([staying.reshape(-1), extended])[chosen], dead)

    new = Hypotheses(
        blank=pick(blank, np.full(len(row), -np.inf), -np.inf),
        letter=pick(repeated, longer, -np.inf),
        prefix=pick(old.prefix, prefix, DEAD),
        parent=pick(old.parent, old.prefix.reshape(-1)[place], NONE),
        last=pick(old.last, letter, -1),
    )
    source = pick(np.broadcast_to(np.arange(width), (batch, width)), place % width, 0)
    return new, source, pick(np.full(batch * width, -1), letter, -1)


def largest(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The places and values of the ``count`` largest scores of each row (or all), the largest first."""
    if scores.shape[1] > count:
        places = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
    else:
        places = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    values = np.take_along_axis(scores, places, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1)


def letters_of(found: Beam, slots: np.ndarray) -> np.ndarray:
    """The letters that the frames added to some hypotheses: (B, n) places in the beam -> (B, n, T), -1 for none."""
    letters = np.empty((*slots.shape, len(found.sources)), np.int64)
    for time in reversed(range(len(found.sources))):
        letters[..., time] = np.take_along_axis(found.added[time], slots, 1)
        slots = np.take_along_axis(found.sources[time], slots, 1)
    return letters
