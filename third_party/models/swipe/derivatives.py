"""Derivatives of traces in time, of a padded batch.

    p (batch, time, n), length (batch,)  ->  p' (batch, time, n), per 0.1 s

Central differences inside and one-sided ones at both ends, as ``numpy.gradient``. In this unit of time the speed of a
finger, in key widths, is about 1, and so is its acceleration.
"""

import torch
from torch import Tensor

UNIT = 0.1
"""Seconds."""


def derivative(values: Tensor, lengths: Tensor, rate: float) -> Tensor:
    """p' (batch, time, n), in units of p per 0.1 s; zero for a single point. What is behind the end is arbitrary.

    Args:
        values: p (batch, time, n).
        lengths: points of each row, (batch,) int64.
        rate: points per second.
    """
    frames = torch.arange(values.shape[1], device=values.device)
    last = (lengths - 1).clamp(min=0)[:, None]  # (batch, 1)
    after = torch.minimum(frames + 1, last)  # (batch, time)
    before = torch.minimum((frames - 1).clamp(min=0), last)
    steps = (after - before).clamp(min=1)[..., None].to(values.dtype)
    columns = (-1, -1, values.shape[2])
    difference = values.gather(1, after[..., None].expand(columns)) - values.gather(
        1, before[..., None].expand(columns)
    )
    return difference / steps * (rate * UNIT)
