r"""Shape templates: the word whose ideal path over the keys is nearest to a trace (SHARK2).

A word's template is the polyline through the centres of its keys, a trace the polyline of its points; both are
resampled to N points at equal arc length. Words whose first and last key are far from the ends of the trace are pruned.
Two channels measure the distance of a trace u to a template t in key widths,

.. math::

    x_{location} = \sum_i \alpha_i \lVert u_i - t_i \rVert, \qquad
    x_{shape} = \frac{1}{N} \sum_i \lVert \hat u_i - \hat t_i \rVert,

where :math:`\alpha` grows from the middle to the ends and sums to 1 (the tunnel of SHARK2, in which the distance is 0,
is left out: on real swipes it lowers the accuracy), and a hat means: moved to its centroid, and scaled
so that the longer side of its bounding box is 1. With independent Gaussian errors of the channels,

.. math::

    \log p(w \mid u) = -\frac{x_{shape}^2}{2 \sigma_{shape}^2} - \frac{x_{location}^2}{2 \sigma_{location}^2}
        + \lambda \log f_w + \mathrm{const},

normalised over the words that were not pruned. f is the word's frequency, of which SHARK2 knows only that ties are
broken by it.

P. O. Kristensson and S. Zhai, "SHARK2: a large vocabulary shorthand writing system for pen-based computers", UIST 2004.
"""

from collections.abc import Sequence

import numpy as np

from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.words_by_ends import WordsByEnds
from seq2seq.swipe.keyboards.layout import Layout

POINTS = 32
"""Points of a resampled path."""

SHAPE_WIDTH, LOCATION_WIDTH = 0.1, 0.25
"""Standard deviations of the channels: of a bounding box's longer side, and in key widths."""

LANGUAGE_WEIGHT = 0.5
"""The exponent of a word's frequency. It and the widths have the best accuracy on one half of the words of the 777 real
swipes of the How-We-Swipe study, with a lexicon of 20,000 words."""


class Templates:
    """The templates of a lexicon on a layout.

    Args:
        words: distinct words of the layout's letters.
        log_frequencies: (words,), natural logarithms; None for equal ones.

    Raises:
        ConfigurationError: a word cannot be typed.
    """

    def __init__(self, words: Sequence[str], layout: Layout, log_frequencies: np.ndarray | None = None) -> None:
        self.lexicon = WordsByEnds(words, layout, log_frequencies)
        self.paths = np.empty((len(words), POINTS, 2), np.float32)
        lengths = np.array([len(letters) for letters in self.lexicon.letters])
        for length in np.unique(lengths):
            among = np.flatnonzero(lengths == length)
            letters = np.stack([self.lexicon.letters[number] for number in among])  # (among, length)
            self.paths[among] = by_arc_length(self.lexicon.centres[letters], POINTS)

    def candidates(
        self,
        trace: np.ndarray,
        count: int = 4,
        shape_width: float = SHAPE_WIDTH,
        location_width: float = LOCATION_WIDTH,
        language_weight: float = LANGUAGE_WEIGHT,
    ) -> list[Candidate]:
        """The likeliest words of a trace (points, 2) in key widths, the best first."""
        near = self.lexicon.near(trace)
        shape, location = self.distances(trace, near)
        logits = -((shape / shape_width) ** 2 + (location / location_width) ** 2) / 2
        return self.lexicon.best(near, logits, language_weight, count)

    def distances(self, trace: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shape and location channels of some words, (numbers,) each."""
        path, templates = by_arc_length(trace[None], POINTS), self.paths[numbers]
        shape = np.linalg.norm(normalised(path) - normalised(templates), axis=2).mean(1)
        weights = np.abs(np.linspace(-1, 1, POINTS))
        location = np.linalg.norm(path - templates, axis=2) @ (weights / weights.sum())
        return shape, location


def template_candidates(
    points: Sequence[np.ndarray],
    words: Sequence[str],
    layout: Layout,
    log_frequencies: np.ndarray | None = None,
    candidates: int = 4,
) -> list[list[Candidate]]:
    """The likeliest words of each trace by their shape templates.

    Args:
        points: traces (time, 2), in key widths.
        words: distinct words of the layout's letters.
        log_frequencies: (words,), natural logarithms; None for equal ones.
        candidates: the most words of a trace.
    """
    templates = Templates(words, layout, log_frequencies)
    return [templates.candidates(trace, candidates) for trace in points]


def by_arc_length(paths: np.ndarray, count: int) -> np.ndarray:
    """Paths (paths, points, 2) resampled to (paths, count, 2) at equal arc length; float32."""
    lengths = np.linalg.norm(np.diff(paths, axis=1), axis=2)
    until = np.concatenate([np.zeros((len(paths), 1)), np.cumsum(lengths, 1)], 1)  # (paths, points)
    at = until[:, -1:] * np.linspace(0, 1, count)  # (paths, count)
    if paths.shape[1] == 1:
        return np.repeat(paths, count, 1).astype(np.float32)
    segment = (until[:, None, 1:-1] <= at[:, :, None]).sum(2)  # the last segment is that of its end, too
    begin, end = (np.take_along_axis(until, segment + step, 1) for step in (0, 1))
    share = np.divide(at - begin, end - begin, where=end > begin, out=np.zeros_like(at))[..., None]
    first, second = (np.take_along_axis(paths, (segment + step)[..., None], 1) for step in (0, 1))
    return (first + share * (second - first)).astype(np.float32)


def normalised(paths: np.ndarray) -> np.ndarray:
    """Paths (paths, points, 2) about their centroids, the longer side of each bounding box scaled to 1."""
    centred = paths - paths.mean(1, keepdims=True)
    side = np.ptp(paths, axis=1).max(1)[:, None, None]
    return np.divide(centred, side, where=side > 0, out=np.zeros_like(centred))
