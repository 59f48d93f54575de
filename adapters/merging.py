"""merge and unmerge: evaluation at the dense model's cost.

    linear      W' = A_m ... A_1 (W + sum of deltas),    b' likewise      (A_i = 1 + delta of the i-th after it)
    layer norm  w' = the adapter's weight vector,           b' = sum of shifts

All merged weights are computed and checked before the first is put in place, so an error leaves the model unchanged.
Unmerging puts the kept base tensors back (``adapters.base.kept_base``), so it is exact and costs nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from adapters.base.kept_base import check_finite, check_linear_adapter, check_untied
from adapters.base.mergeable import Mergeable
from adapters.sharded import check_whole


def adapted_modules(model: nn.Module) -> list[tuple[str, Mergeable]]:
    """Every module of the model that holds adapters, with its path."""
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
    """Names of the attachments of any task that cannot be merged, in the order of their first places."""
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
        MergeError: an active adapter is not linear, a merged weight would not be finite, or it is tied to another one;
            or the model is sharded. The model is unchanged.
    """
    for _, module, weights in merged_tensors(model):
        module.replace_base(weights)


def merged_tensors(model: nn.Module) -> list[tuple[str, Mergeable, dict[str, Tensor]]]:
    """The hosts with their paths, and the tensors that ``merge`` puts into each; raises as it does."""
    check_whole(model)
    for path, adapter in _active_and_not_linear(model):
        check_linear_adapter(adapter, path)
    planned = []
    for path, module in adapted_modules(model):
        weights = module.merged_weights()
        check_finite(weights.values(), f"at {path}")
        planned.append((path, module, weights))
    check_untied(model, ((path, getattr(host, name)) for path, host, weights in planned for name in weights))
    return planned


def unmerge(model: nn.Module) -> None:
    """Put the base weights back, bit for bit. An unmerged model stays as it is."""
    for _, module in adapted_modules(model):
        module.restore_base()


@contextmanager
def merged(model: nn.Module) -> Iterator[nn.Module]:
    """``with merged(model):`` runs its body merged and then restores the previous state, also after an error."""
    was_merged = is_merged(model)
    merge(model)
    try:
        yield model
    finally:
        if not was_merged:
            unmerge(model)
