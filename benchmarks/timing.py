"""Times of several functions from interleaved rounds: what disturbs the machine disturbs all of them alike."""

import gc
import random
import statistics
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import torch

from t3nsor.contraction.clock import clocked

HOPELESS = 3.0
"""A contender that took so many times the fastest, each warmed up by a run, is not timed again."""


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
) -> dict[Hashable, Timing]:
    """Run all functions to warm up, then round after round, each time in another order, and give each its times.

    Args:
        contenders: they run once more before the rounds; the hopeless ones have that time alone, see `HOPELESS`.
    """
    for function in functions.values():
        clocked(function, device)
    first = {name: clocked(run, device) for name, run in functions.items() if name in (contenders or ())}
    best = min(first.values(), default=0.0)
    dropped = {name for name, seconds in first.items() if seconds > HOPELESS * best}
    seconds = {name: [first[name]] if name in dropped else [] for name in functions}
    shuffle = random.Random(0)
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            order = [name for name in functions if name not in dropped]
            shuffle.shuffle(order)  # what ran just before leaves its data in the caches
            for name in order:
                seconds[name].append(clocked(functions[name], device))
    finally:
        if gc_was_on:
            gc.enable()
    return {name: Timing.of(times) for name, times in seconds.items()}
