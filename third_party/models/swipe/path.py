"""Features of the path: where a point lies on the keyboard, and how it moves.

    points  (batch, time, 2)       x, y, in key widths
    mask    (batch, time)          1 up to the end of a trace, 0 behind it
    boxes   (batch, letters, 4)    x, y of a key's centre, its width and height, in key widths

Velocities are in key widths per 0.1 s and accelerations in key widths per (0.1 s)^2; both are about 1 for a finger.
"""

import torch
from torch import Tensor, nn

UNIT = 0.1
"""Seconds."""
ABSENT = 1e3
"""Coordinates of the centre of a letter's key that a layout lacks, in key widths."""


def derivative(values: Tensor, lengths: Tensor, rate: float) -> Tensor:
    """The derivative of values (batch, time, n) in time, per 0.1 s; what is behind the end of a trace is arbitrary.

    Central differences inside and one-sided ones at both ends, as ``numpy.gradient``; zero for a single point.

    Args:
        values: (batch, time, n).
        lengths: points of each row, (batch,) int64.
        rate: points per second.
    """
    frames = torch.arange(values.shape[1], device=values.device)
    last = (lengths - 1).clamp(min=0)[:, None]  # (batch, 1)
    after = torch.minimum(frames + 1, last)  # (batch, time)
    before = torch.minimum((frames - 1).clamp(min=0), last)
    steps = (after - before).clamp(min=1)[..., None].to(values.dtype)
    to, since = (index[..., None].expand_as(values) for index in (after, before))
    return (values.gather(1, to) - values.gather(1, since)) / steps * (rate * UNIT)


class Position(nn.Module):
    """x and y between -1 and 1 on the rectangle around the letters' keys: it moves and grows with them."""

    size = 2

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The position (batch, time, 2)."""
        centres, halves = boxes[..., :2], boxes[..., 2:] / 2
        absent = centres.abs().amax(-1, keepdim=True) > ABSENT / 2
        low = (centres - halves).masked_fill(absent, torch.inf).amin(1, keepdim=True)  # (batch, 1, 2)
        high = (centres + halves).masked_fill(absent, -torch.inf).amax(1, keepdim=True)
        return 2 * (points - low) / (high - low) - 1


class Motion(nn.Module):
    """The first derivatives of x and y, or all up to the n-th.

    Args:
        rate: points per second.
        order: n, 1 for x' and y', 2 for x'' and y'' too.
    """

    def __init__(self, rate: float, order: int) -> None:
        super().__init__()
        self.rate, self.order, self.size = rate, order, 2 * order

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The derivatives (batch, time, 2 n)."""
        lengths, found, current = mask.sum(1), [], points
        for _ in range(self.order):
            current = derivative(current, lengths, self.rate)
            found.append(current)
        return torch.cat(found, -1)


class Time(nn.Module):
    """Seconds since the start.

    Args:
        rate: points per second.
    """

    size = 1

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """The times (batch, time, 1)."""
        frames = torch.arange(points.shape[1], device=points.device, dtype=points.dtype)
        return (frames / self.rate)[None, :, None].expand(points.shape[0], -1, 1)


class Events(nn.Module):
    """One-hot of what happens at a point: the finger goes down, moves or goes up (a single point goes down and up)."""

    size = 3

    def forward(self, points: Tensor, mask: Tensor, boxes: Tensor) -> Tensor:
        """Down, move, up (batch, time, 3)."""
        frames = torch.arange(points.shape[1], device=points.device)
        up = frames == mask.sum(1, keepdim=True) - 1  # (batch, time)
        down = (frames == 0).expand_as(up)
        return torch.stack([down, ~(down | up), up], -1).to(points.dtype)
