"""merge and unmerge: evaluation at the dense model's cost.

    linear      W' = A_m ... A_1 (W + sum of deltas),    b' likewise      (A_i = 1 + delta of the i-th after it)
    layer norm  w' = the vector that the adapter makes,     b' = sum of shifts

All new weights are computed and checked before the first is put in place; a refusal leaves the model as it was. The
base tensors are kept, not subtracted back to, so unmerging is exact and costs nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from adapters.base.mergeable import Mergeable


class MergeError(RuntimeError):
    """The adapters cannot be merged; the model is as it was."""


def adapted_modules(model: nn.Module) -> list[tuple[str, Mergeable]]:
    """Every place of the model that holds adapters, with its path."""
    return [(path, m) for path, m in model.named_modules() if isinstance(m, Mergeable)]


def unmergeable(model: nn.Module) -> str | None:
    """Path of the first active adapter that is not linear and so cannot be merged, or None."""
    return next((path for path, _ in _active_and_not_linear(model)), None)


def _active_and_not_linear(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in adapted_modules(model):
        for name, controller in module.named_controllers():
            if controller.active is not None and not controller.active.is_linear:
                yield f"{path}.{name}", controller.active


def non_linear_adapters(model: nn.Module) -> list[str]:
    """Names of the attachments that cannot be merged, of whatever task, in the order of their first places."""
    names = {
        path.rpartition(".")[2]: None
        for _, module in adapted_modules(model)
        for path, controller in module.named_controllers()
        if not all(adapter.is_linear for adapter in controller.tasks.values())
    }
    return list(names)


def is_merged(model: nn.Module) -> bool:
    """Whether any adapter of the model is merged now."""
    return any(module.is_merged for _, module in adapted_modules(model))


def merge(model: nn.Module) -> None:
    """Write the active adapters into the dense weights. Merging a merged model changes nothing.

    Raises:
        MergeError: an active adapter is not linear, or a merged weight would not be finite. The model is as it was.
    """
    for path, adapter in _active_and_not_linear(model):
        reason = getattr(adapter, "not_linear_because", "has an activation inside")
        raise MergeError(
            f"Only linear adapters have a dense weight to merge; {path} {reason}: "
            "evaluate it unmerged, or choose tt_lora or tt_single without core_activation."
        )
    planned = []
    for path, module in adapted_modules(model):
        weights = module.merged_weights()
        if not all(is_finite(weight) for weight in weights.values()):
            raise MergeError(
                f"A merged weight is finite; at {path} it has infinities or NaN: "
                "training diverged or the delta overflows this dtype, so lower the learning rate or load in bfloat16."
            )
        planned.append((module, weights))
    for module, weights in planned:
        module.set_merged(weights)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no entry is infinite or NaN. A sum shows it in one reading, unless finite entries overflow in it."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def unmerge(model: nn.Module) -> None:
    """Put the base weights back, bit for bit. Nothing happens where nothing is merged."""
    for _, module in adapted_modules(model):
        module.unmerge()


@contextmanager
def merged(model: nn.Module) -> Iterator[nn.Module]:
    """``with merged(model):`` runs its body merged and then restores the state before, also after an error."""
    was_merged = is_merged(model)
    merge(model)
    try:
        yield model
    finally:
        if not was_merged:
            unmerge(model)
