"""Loops: a part of a model that runs several times in one forward, and a delta for each of its runs.

    module.loops = LoopCounter(6)    declares that everything below ``module`` runs 6 times
    module.loops.current = t         set by the model before run t = 0, 1, ..., as ``set_active_task`` does for a task

    y = W x + b + delta_t(x)         t = min(current, number of deltas - 1): later runs reuse the last delta

A checkpointed activation is recomputed in backward, when ``current`` has its last value: ``checkpointed`` restores the
one of the forward.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.experts import DeltaPerExpert
from adapters.base.hooks import is_hooked
from adapters.base.linear_delta import LinearDelta

ATTRIBUTE = "loops"
"""The attribute of a looped module that holds its ``LoopCounter``, and of a delta per loop that holds the deltas."""


class LoopCounter:
    """The runs of one module: state of the model, which its adapters read.

    Args:
        number: b, how many runs have a delta of their own by default.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.current = 0

    def checkpointed(self, checkpoint: Callable[..., Any], function: Callable[..., Any], *args: Any) -> Any:
        """``checkpoint(function, *args)`` whose recomputation runs in the loop of this call; plain without a graph."""
        if not torch.is_grad_enabled():
            return function(*args)
        return checkpoint(partial(self._run_in, self.current, function), *args)

    def _run_in(self, loop: int, function: Callable[..., Any], *args: Any) -> Any:
        before, self.current = self.current, loop
        try:
            return function(*args)
        finally:
            self.current = before


class DeltaPerLoop(LinearDelta):
    """The delta of the current loop, one of several beside the same linear.

    Args:
        deltas: that of loop 0, 1, ...; the last one also serves later loops.
        counter: that of the module that the linear is in.
    """

    is_linear = False
    not_linear_because = "is another one in each loop of a weight that serves all loops"
    instead_of_merging = "evaluate it unmerged, or train one delta for all loops (loops=None)"

    def __init__(self, deltas: Iterable[LinearDelta], counter: LoopCounter) -> None:
        super().__init__()
        self.loops = nn.ModuleList(deltas)
        self.counter = counter

    @property
    def current(self) -> LinearDelta:
        """The delta of the loop that the model is in."""
        return self.loops[min(self.counter.current, len(self.loops) - 1)]

    @property
    def fuses(self) -> bool:
        return self.current.fuses and not is_hooked(self)

    def reset_parameters(self) -> None:
        for delta in self.loops:
            delta.reset_parameters()

    def onto(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.current.onto(x, weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.current(x)


def deltas_of(delta: nn.Module) -> list[nn.Module]:
    """The deltas of all loops or experts, or the one for all of them."""
    if isinstance(delta, DeltaPerLoop):
        return list(delta.loops)
    return list(delta.experts) if isinstance(delta, DeltaPerExpert) else [delta]


def loops_of(model: nn.Module) -> dict[str, LoopCounter]:
    """The counters of the looped modules of a model, by path."""
    found = {path: getattr(module, ATTRIBUTE, None) for path, module in model.named_modules()}
    return {path: loops for path, loops in found.items() if isinstance(loops, LoopCounter)}


def split_loop(path: str) -> tuple[str, str]:
    """The loop and the rest of the path of a layer below an adapter's module: loops.3.linear is ("3", "linear")."""
    return split_entry(ATTRIBUTE, path)


def split_entry(attribute: str, path: str) -> tuple[str, str]:
    """The entry of the list ``attribute`` that a path begins with and the rest of it; "" and the path for another."""
    first, _, rest = path.partition(".")
    if first != attribute:
        return "", path
    entry, _, rest = rest.partition(".")
    return entry, rest
