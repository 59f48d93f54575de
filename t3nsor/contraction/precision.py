"""Products in the dtype of their operands, also under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def contract(equation: str, *operands: Tensor) -> Tensor:
    """Return `torch.einsum` in the dtype of its operands, also under autocast, which would lower it."""
    with autocast_off(operands[0].device.type):
        return torch.einsum(equation, *operands)


def autocast_off(device_type: str) -> AbstractContextManager:
    """Return a context without autocast; almost free if autocast is off already."""
    return torch.autocast(device_type, enabled=False) if _autocast_is_on(device_type) else nullcontext()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype of a product with x under autocast, or None if autocast is off or does not apply to x."""
    if x.dtype == torch.float64 or not _autocast_is_on(x.device.type):
        return None
    return torch.get_autocast_dtype(x.device.type)


def _autocast_is_on(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
