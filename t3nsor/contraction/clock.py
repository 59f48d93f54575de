"""How long a function takes, the work that it gave a GPU included."""

import time
from collections.abc import Callable

import torch


def clocked(function: Callable[[], object], device: torch.device) -> float:
    """The seconds of one call."""
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def shortest(function: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The least seconds of some calls, once it has run."""
    function()
    return min(clocked(function, device) for _ in range(rounds))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
