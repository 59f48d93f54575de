r"""Shape templates: the word whose ideal path over the keys is nearest to a trace (SHARK2).

A word's template is the polyline through the centres of its keys, a trace the polyline of its points; both are
resampled to N points at equal arc length. Words whose first and last key are far from the ends of the trace are pruned.
Two channels measure the distance of a trace u to a template t in key widths,

.. math::

    x_{location} = \sum_i \alpha_i \lVert u_i - t_i \rVert, \qquad
    x_{shape} = \frac{1}{N} \sum_i \lVert \hat u_i - \hat t_i \rVert,

where :math:`\alpha` grows from the middle to the ends and sums to 1 (SHARK2's tunnel, in which the distance is 0, is
left out), and a hat means: moved to its centroid, and scaled so that the longer side of its bounding box is 1. With
independent Gaussian errors of the channels, the logit of a word is

.. math::

    \ell_w(u) = -\frac{x_{shape}^2}{2 \sigma_{shape}^2} - \frac{x_{location}^2}{2 \sigma_{location}^2}.

Word frequencies come in by ``words_by_ends``; SHARK2 only breaks ties by them.

P. O. Kristensson and S. Zhai, "SHARK2: a large vocabulary shorthand writing system for pen-based computers", UIST 2004.
"""

from collections.abc import Sequence

import numpy as np

from seq2seq.swipe.decoding.words_by_ends import WordsByEnds
from seq2seq.swipe.keyboards.layout import Layout

POINTS = 32
"""Points of a resampled path."""

SHAPE_WIDTH, LOCATION_WIDTH = 0.1, 0.25
"""Standard deviations of the channels, of a bounding box's longer side and in key widths: the best on one half of the
words of the 777 real swipes of the How-We-Swipe study, with a lexicon of 20,000 words."""


class Templates(WordsByEnds):
    """The templates of a lexicon on a layout."""

    def __init__(self, words: Sequence[str], layout: Layout, log_frequencies: np.ndarray | None = None) -> None:
        super().__init__(words, layout, log_frequencies)
        self.paths = np.empty((len(words), POINTS, 2), np.float32)
        lengths = np.array([len(letters) for letters in self.letters])
        for length in np.unique(lengths):
            among = np.flatnonzero(lengths == length)
            letters = np.stack([self.letters[number] for number in among])  # (among, length)
            self.paths[among] = by_arc_length(self.centres[letters], POINTS)

    def logits(self, trace: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        shape, location = self.distances(trace, numbers)
        return -((shape / SHAPE_WIDTH) ** 2 + (location / LOCATION_WIDTH) ** 2) / 2

    def distances(self, trace: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shape and location channels of some words, (numbers,) each."""
        path, templates = by_arc_length(trace[None], POINTS), self.paths[numbers]
        shape = np.linalg.norm(normalised(path) - normalised(templates), axis=2).mean(1)
        weights = np.abs(np.linspace(-1, 1, POINTS))
        location = np.linalg.norm(path - templates, axis=2) @ (weights / weights.sum())
        return shape, location


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
