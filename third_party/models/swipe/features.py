"""What a model computes from the points of a trace and the keys of its layout.

    points  (batch, time, 2)       x, y, in key widths
    mask    (batch, time)          1 up to the end of a trace, 0 behind it
    boxes   (batch, letters, 4)    x, y of a key's centre, its width and height, in key widths
    result  (batch, time, size)    0 behind the end

A feature of a letter is relative to its key: the offset from the centre, in widths and heights of the key. So a trace
that moves with its keyboard has the same features, and those of a permuted alphabet are permuted. The key of a letter
that a layout lacks is far away (``ABSENT``); its features are 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from third_party.models.swipe.configuration import SwipeConfig
from third_party.models.swipe.derivatives import derivative

ABSENT = 1e3
"""Coordinates of the centre of a key that is not there, in key widths."""


def distances(points: Tensor, boxes: Tensor) -> Tensor:
    """(batch, time, letters): the distance to each key's centre, horizontally in its widths, vertically in its heights."""
    offsets = points[:, :, None] - boxes[:, None, :, :2]  # (batch, time, letters, 2)
    return (offsets / boxes[:, None, :, 2:]).norm(dim=-1)


class KeyWeights(nn.Module):
    """The weight of each letter, sigmoid(SLOPE (REACH - distance)): about 1 on its key and 0 two keys away."""

    SLOPE, REACH = 5.0, 0.9

    def __init__(self, config: SwipeConfig) -> None:
        super().__init__()
        self.size = len(config.alphabet)

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The weights (batch, time, letters)."""
        return torch.sigmoid(self.SLOPE * (self.REACH - distances(points, boxes)))


class Motion(nn.Module):
    """x', y', x'', y'', in key widths and tenths of a second."""

    size = 4

    def __init__(self, config: SwipeConfig) -> None:
        super().__init__()
        self.rate = config.rate

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The derivatives (batch, time, 4)."""
        lengths = mask.sum(1)
        velocity = derivative(points, lengths, self.rate)
        return torch.cat([velocity, derivative(velocity, lengths, self.rate)], -1)


class FeatureSet(nn.Module):
    """Several features side by side; 0 behind the end of a trace."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.size = sum(part.size for part in parts)

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The features (batch, time, size)."""
        found = torch.cat([part(points, mask, boxes) for part in self.parts], -1)
        return found.masked_fill(mask[..., None] == 0, 0)


FEATURES: dict[str, Callable[[SwipeConfig], FeatureSet]] = {
    "key_weights": lambda config: FeatureSet(KeyWeights(config), Motion(config)),
}
"""The feature sets by name."""
