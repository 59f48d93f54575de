"""Features of letters: how a point lies to the key of each letter.

    points   (batch, time, 2)             x, y, in key widths
    boxes    (batch, letters, 4)          x, y of a key's centre, its width and height, in key widths
    offsets  (batch, time, letters, 2)    from a key's centre, in half diagonals of the key

Offsets are relative to keys, so a trace that moves or grows with its keyboard keeps its features, and those of a
permuted alphabet are permuted. A letter without a key has its centre far away; its features are 0.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def offsets(points: Tensor, boxes: Tensor) -> Tensor:
    """From each key's centre, in half diagonals of the key: (batch, time, letters, 2)."""
    radius = boxes[:, None, :, 2:].norm(dim=-1, keepdim=True) / 2  # (batch, 1, letters, 1)
    return (points[:, :, None] - boxes[:, None, :, :2]) / radius


class PerLetter(nn.Module):
    """A module with one feature for each letter.

    Args:
        letters: of the alphabet.
    """

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.size = letters


class NearestKey(PerLetter):
    """1 for the letter whose key is nearest, else 0."""

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """One-hot (batch, time, letters)."""
        nearest = offsets(points, boxes).norm(dim=-1).argmin(-1)
        return functional.one_hot(nearest, self.size).to(points.dtype)


class InsideKey(PerLetter):
    """1 for the letters in whose box the point lies, else 0 (Alsharif et al. 2015)."""

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """0 or 1, (batch, time, letters)."""
        beside = (points[:, :, None] - boxes[:, None, :, :2]).abs()  # (batch, time, letters, 2)
        return (beside <= boxes[:, None, :, 2:] / 2).all(-1).to(points.dtype)


class KeyWeights(PerLetter):
    """sigmoid(1.8 (2.2 - distance)), distances in half diagonals: .98 at a key's centre, .5 two keys away.

    Source: github.com/proshian/neuroswipe (Yandex Cup 2023), whose unit is the mean half diagonal of the layout.
    """

    SLOPE, REACH = 1.8, 2.2

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The weights (batch, time, letters)."""
        return torch.sigmoid(self.SLOPE * (self.REACH - offsets(points, boxes).norm(dim=-1)))


class KeyGaussians(PerLetter):
    """exp(-|offset / width|^2 / 2), with a trainable width for each letter and axis, initially a half diagonal."""

    def __init__(self, letters: int) -> None:
        super().__init__(letters)
        self.log_widths = nn.Parameter(torch.zeros(letters, 2))

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The densities (batch, time, letters), 1 at a key's centre."""
        scaled = offsets(points, boxes) * self.log_widths.to(points.dtype).neg().exp()  # (batch, time, letters, 2)
        return scaled.square().sum(-1).mul(-0.5).exp()


class KeyDistances(PerLetter):
    """1 - distance / FARTHEST, at least 0: an affine map of the distance, which the read-in maps on."""

    FARTHEST = 10.0
    """Half diagonals; about the width of a keyboard."""

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The closeness (batch, time, letters)."""
        return (1 - offsets(points, boxes).norm(dim=-1) / self.FARTHEST).clamp(min=0)
