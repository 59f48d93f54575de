"""Augmentation of a batch of traces, and random layouts to draw synthetic traces on.

Each trace of a batch gets random numbers of its own. Padding stays zero, and shapes stay as they are.

Shapes: points (batch, time, 2) float32 in key widths, mask (batch, time) int64, boxes (batch, letters, 4) float32: x
and y of a key's centre, width and height.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from adapters.validation import from_json, refuse
from seq2seq.swipe.keyboards.layout import Layout, layout_from_rows
from third_party.models.swipe.path import ABSENT

WHERE = "the augmentation"
WAVES = 3
"""Sines of which a warp of time is made, with 1, 2 and 3 half periods in a trace."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How much traces and keys are changed; all are standard deviations, and 0 changes nothing.

    Args:
        noise: of each point, in key widths.
        shift: of a trace as a whole, in key widths.
        rotation: of a trace about its mean point, in radians.
        scale: of a trace about its mean point: of the logarithm of the factor.
        warp: of the speed along a trace, as a share of itself. Time never runs back.
        keys: of each key's centre on its own, as a share of its width and height.
        stretch: of the keyboard's width and height, with the trace: of the logarithm of the factors.
    """

    noise: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    warp: float = 0.0
    keys: float = 0.0
    stretch: float = 0.0

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if value < 0:
                refuse(key, "must not be negative", value, "0 changes nothing", WHERE)

    @classmethod
    def from_dict(cls, values: Any) -> "Augmentation":
        """Read the JSON form.

        Raises:
            ConfigurationError: a key is unknown, or a value is not a number.
        """
        if not isinstance(values, dict):
            refuse("augmentation", "is an object", repr(values), 'write {"noise": 0.05}', "the run")
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    def __call__(
        self, points: np.ndarray, mask: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The changed points and boxes.

        Args:
            rng: e.g. ``np.random.default_rng((seed, step))``, so that a run that is resumed draws the same numbers.
        """
        batch = len(points)
        points = _warped(points, mask.sum(1), self.warp * rng.standard_normal((batch, WAVES)))
        known = mask[..., None]  # (batch, time, 1)
        middle = (points * known).sum(1, keepdims=True) / known.sum(1, keepdims=True)  # (batch, 1, 2)
        angle, size = rng.standard_normal((2, batch, 1)) * [[[self.rotation]], [[self.scale]]]
        x, y = np.moveaxis(points - middle, 2, 0)  # (batch, time) each
        turned = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], 2)
        points = middle + turned * np.exp(size)[..., None]
        points = (
            points + self.shift * rng.standard_normal((batch, 1, 2)) + self.noise * rng.standard_normal(points.shape)
        )
        factor = np.exp(self.stretch * rng.standard_normal((batch, 1, 2)))
        moved = boxes[..., :2] + self.keys * rng.standard_normal((*boxes.shape[:2], 2)) * boxes[..., 2:]
        changed = np.concatenate([moved * factor, boxes[..., 2:] * factor], 2)
        boxes = np.where(boxes[..., :1] < ABSENT, changed, boxes)
        return (points * factor * known).astype(np.float32), boxes.astype(np.float32)


def _warped(points: np.ndarray, counts: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """Points at other times, linear between points: u, from 0 to 1, becomes u + sum_j waves_j sin(j pi u) / (j pi).

    Its derivative 1 + sum_j waves_j cos(j pi u) stays at or above 0.1, as larger waves (batch, WAVES) are made smaller.
    """
    total = np.abs(waves).sum(1, keepdims=True)
    waves = waves * np.minimum(1, 0.9 / np.maximum(total, 1e-9))
    last = np.maximum(counts - 1, 1)[:, None]  # (batch, 1)
    u = np.minimum(np.arange(points.shape[1]) / last, 1)  # (batch, time)
    phase = np.pi * np.arange(1, WAVES + 1)
    at = (u + (np.sin(u[..., None] * phase) / phase * waves[:, None]).sum(2)) * last
    before = np.clip(at.astype(np.int64), 0, np.maximum(last - 1, 0))
    after = np.minimum(before + 1, counts[:, None] - 1)
    share = np.clip(at - before, 0, 1)[..., None]
    row = np.arange(len(points))[:, None]
    return points[row, before] * (1 - share) + points[row, after] * share


def random_layout(rng: np.random.Generator, alphabet: str, rows: int = 3) -> Layout:
    """A layout in which the letters are dealt at random over the rows, which begin at random places.

    A model that is trained on many of them knows no letter by its place. Lengths of rows differ by a few keys, rows
    begin up to 1.5 key widths from the left, and keys are 1.2 to 1.9 times as high as wide.

    Raises:
        ConfigurationError: there are more rows than letters, or none.
    """
    if not 1 <= rows <= len(alphabet):
        refuse("rows", f"must be between 1 and the {len(alphabet)} letters", str(rows), "3 is usual", "a random layout")
    letters = "".join(rng.permutation(list(alphabet)))
    cuts = np.linspace(0, len(letters), rows + 1).round().astype(int)
    room = min(np.diff(cuts).min() - 1, 3) // 2
    cuts[1:-1] += rng.integers(-room, room + 1, rows - 1)
    parts = [letters[begin:end] for begin, end in pairwise(cuts)]
    shifts = [float(shift) for shift in rng.uniform(0, 1.5, rows)]
    return layout_from_rows("random", "", parts, shifts, row_height=36 * float(rng.uniform(1.2, 1.9)))
