"""A stand-in for a model: compares a trace's shape with the straight paths of a few words."""

import numpy as np

from seq2seq.swipe.keyboards.layout import Layout, layout_from_rows
from seq2seq.swipe.predictor import Prediction, Suggestion
from seq2seq.swipe.traces.trace import Trace, resampled

QWERTY = layout_from_rows("qwerty", "en", ["qwertyuiop", "asdfghjkl", "zxcvbnm"])
DVORAK = layout_from_rows("dvorak", "en", ["pyfgcrl", "aoeuidhtns", "qjkxbmwvz"])
WORDS = ["hello", "help", "hero", "jello", "halo", "world", "would", "swipe", "trace", "the", "their", "there", "a"]
DISPLAYED = {**{word: word for word in WORDS}, "dont": "don't", "i": "I"}
SAMPLES = 32


class StandIn:
    """Answers as a Predictor does; only tests have it."""

    layouts = {"qwerty": QWERTY, "dvorak": DVORAK}  # noqa: RUF012
    tries = {"en": None}  # noqa: RUF012
    summary = {"parameters": 0, "model_bytes": 0, "lexicon_bytes": 0}  # noqa: RUF012

    def predict(self, trace: Trace, lexicon: str | None, candidates: int = 4) -> Prediction:
        layout = self.layouts[trace.layout]
        points = resampled(trace, layout, 30)
        shape = along(points)
        distances = {word: np.linalg.norm(along(path(word, layout)) - shape, axis=1).mean() for word in DISPLAYED}
        shares = np.exp(-8 * np.array(list(distances.values())))
        best = sorted(zip(shares / shares.sum(), DISPLAYED, strict=True), reverse=True)[:candidates]
        away = np.linalg.norm(points[:, None] - layout.boxes[None, :, :2], axis=2)
        near = np.exp(-2 * away**2)
        posterior = np.concatenate([np.zeros((len(points), 1)), near / near.sum(1, keepdims=True)], 1)
        found = [Suggestion(word, DISPLAYED[word], float(share)) for share, word in best]
        return Prediction(found, posterior.astype(np.float32), points, layout.alphabet, 1.0)


def path(word: str, layout: Layout) -> np.ndarray:
    """The centres of a word's keys (letters, 2), in key widths."""
    return layout.boxes[[layout.alphabet.index(letter) for letter in word], :2]


def along(points: np.ndarray) -> np.ndarray:
    """Points at equal distances along a line of points: (SAMPLES, 2)."""
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0, steps[-1], SAMPLES)
    return np.stack([np.interp(at, steps, points[:, axis]) for axis in (0, 1)], 1)
