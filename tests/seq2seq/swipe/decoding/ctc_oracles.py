"""Independent values of CTC: sums over all alignments, torch's loss, and lexicons to decode with."""

import itertools

import numpy as np
import torch

from seq2seq.swipe.keyboards.layout import layout_from_rows
from seq2seq.swipe.lexicon.words import Lexicon

QWERTY = layout_from_rows("qwerty", "en", ["qwertyuiop", "asdfghjkl", "zxcvbnm"])


def frames_of(seed: int, batch: int, time: int, letters: int, spread: float = 2.0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(batch, time, 1 + letters)) * spread
    return torch.log_softmax(torch.tensor(logits), -1).numpy()


def word_of(path: tuple[int, ...], alphabet: str) -> str:
    return "".join(alphabet[symbol - 1] for symbol, _ in itertools.groupby(path) if symbol)


def by_alignments(frames: np.ndarray, alphabet: str) -> dict[str, float]:
    """Log-probabilities of all words, by summing over all alignments of (time, 1 + letters) frames."""
    found: dict[str, float] = {}
    for path in itertools.product(range(frames.shape[1]), repeat=len(frames)):
        word = word_of(path, alphabet)
        found[word] = np.logaddexp(found.get(word, -np.inf), sum(frames[t, s] for t, s in enumerate(path)))
    return found


def by_torch(frames: np.ndarray, words: list[str], alphabet: str) -> np.ndarray:
    """Log-probabilities of words, (words,) float64, by torch's CTC loss."""
    targets = torch.tensor([alphabet.index(letter) + 1 for word in words for letter in word])
    lengths = torch.tensor([*map(len, words)])
    repeated = torch.tensor(frames)[:, None].expand(-1, len(words), -1)
    times = torch.full((len(words),), len(frames))
    return -torch.nn.functional.ctc_loss(repeated, targets, times, lengths, reduction="none").numpy()


def lexicon_of(words: list[str], seed: int = 0) -> Lexicon:
    counts = np.random.default_rng(seed).integers(1, 1000, len(words)).tolist()
    return Lexicon.from_counts(zip(words, counts, strict=True), QWERTY)


def lexicon_of_pieces(count: int) -> Lexicon:
    """Words that share prefixes, are prefixes of each other and have double letters."""
    pieces = ["to", "ot", "oo", "a", "all", "ba", "no", "s", "er", "ee", "l", "x"]
    return lexicon_of(sorted({"".join(triple) for triple in itertools.product(pieces, repeat=3)})[:count])
