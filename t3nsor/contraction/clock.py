"""The seconds that a function takes, including the work that it queued on a GPU."""

import time
from collections.abc import Callable

import torch


def clocked(function: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call."""
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def shortest(function: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Return the seconds of the fastest of `rounds` calls, after one call to warm up."""
    function()
    return min(clocked(function, device) for _ in range(rounds))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
