"""Masks of a looped transformer, by the index of a position i in a sequence of n (never by concatenation).

kept          i >= n - N                  the state at i is carried over to the next loop
attended      i - N < j <= i              i sees j
"""

import torch
from torch import Tensor


def kept_positions(length: int, last: int | None, device: torch.device) -> Tensor | None:
    """Which positions (length, 1) keep their state; None for all."""
    if last is None or last >= length:
        return None
    return (torch.arange(length, device=device) >= length - last)[:, None]


def attention_bias(length: int, last: int, like: Tensor) -> Tensor:
    """What is added to the scores (1, 1, length, length): 0 where i sees j, else the lowest number."""
    index = torch.arange(length, device=like.device)
    distance = index[:, None] - index[None, :]  # i - j
    hidden = (distance < 0) | (distance >= last)
    return hidden.to(like.dtype)[None, None] * torch.finfo(like.dtype).min
