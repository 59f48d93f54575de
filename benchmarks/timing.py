"""Times of several functions from interleaved rounds: what disturbs the machine disturbs all of them alike."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import torch

HOPELESS = 1.5
"""What took so many times the fastest in the first round is not timed again."""


class Timing(NamedTuple):
    """Seconds: the median of the rounds and their quartiles."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """That of some measurements."""
        ordered = sorted(seconds)
        last = len(ordered) - 1
        return cls(statistics.median(ordered), ordered[round(last / 4)], ordered[round(3 * last / 4)], len(ordered))


def interleaved(
    functions: Mapping[Hashable, Callable[[], object]],
    rounds: int,
    device: torch.device,
    contenders: set[Hashable] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> dict[Hashable, Timing]:
    """Run all functions once to warm up, then round after round, each time in another order, and give each its times.

    Args:
        contenders: of these the hopeless ones are dropped after the first round, see `HOPELESS`; None for no dropping.
    """
    for function in functions.values():
        function()
    seconds: dict[Hashable, list[float]] = {name: [] for name in functions}
    dropped: set[Hashable] = set()
    shuffle = random.Random(0)
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            order = [name for name in functions if name not in dropped]
            shuffle.shuffle(order)  # what ran just before leaves its data in the caches
            for name in order:
                seconds[name].append(clocked(functions[name], device))
            if number == 0 and contenders:
                best = min(seconds[name][0] for name in contenders)
                dropped = {name for name in contenders if seconds[name][0] > HOPELESS * best}
            progress()
    finally:
        if gc_was_on:
            gc.enable()
    return {name: Timing.of(times) for name, times in seconds.items()}


def clocked(function: Callable[[], object], device: torch.device) -> float:
    """The seconds that one call takes, the device's work included."""
    wait(device)
    start = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
