"""Timing of several functions in interleaved rounds, so that disturbances affect all of them alike."""

import gc
import random
import statistics
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import torch

from t3nsor.contraction.clock import clocked

DROP_FACTOR = 3.0
"""A contender that takes more than this multiple of the fastest one after a warm-up is not timed again."""


class Timing(NamedTuple):
    """The median and the quartiles of the rounds, in seconds, and the number of rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Return the timing of some measurements."""
        ordered = sorted(seconds)
        last = len(ordered) - 1
        return cls(statistics.median(ordered), ordered[round(last / 4)], ordered[round(3 * last / 4)], len(ordered))


def interleaved(
    functions: Mapping[Hashable, Callable[[], object]],
    rounds: int,
    device: torch.device,
    contenders: set[Hashable] | None = None,
) -> dict[Hashable, Timing]:
    """Return the times of all functions, run once to warm up and then in rounds, each in a different order.

    Args:
        contenders: run once more before the rounds; slow ones only have that time, see `DROP_FACTOR`.
    """
    seconds = seconds_of_rounds(functions, rounds, device, contenders)
    return {name: Timing.of(times) for name, times in seconds.items()}


def seconds_of_rounds(
    functions: Mapping[Hashable, Callable[[], object]],
    rounds: int,
    device: torch.device,
    contenders: set[Hashable] | None = None,
) -> dict[Hashable, list[float]]:
    """Return the seconds of every round, as `interleaved` measures them, for ratios within a round."""
    for function in functions.values():
        clocked(function, device)
    first = {name: clocked(run, device) for name, run in functions.items() if name in (contenders or ())}
    best = min(first.values(), default=0.0)
    dropped = {name for name, seconds in first.items() if seconds > DROP_FACTOR * best}
    seconds = {name: [first[name]] if name in dropped else [] for name in functions}
    shuffle = random.Random(0)
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            order = [name for name in functions if name not in dropped]
            shuffle.shuffle(order)  # the preceding function leaves its data in the caches
            for name in order:
                seconds[name].append(clocked(functions[name], device))
    finally:
        if gc_was_on:
            gc.enable()
    return seconds
