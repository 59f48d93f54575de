"""What is checked before a merge, for the whole model at once, so that a merge is complete or does not begin.

    merge_adapter       the named adapters are linear, and their base weights tied to no other module's; with
                        ``safe_merge``, the merged weights are finite
    merge_and_unload    also: the plain model can hold their biases, and has whole modules (modules_to_save) of theirs

Active adapters that are not named act beside a merged weight, but a plain model is without them.
"""

import warnings
from collections.abc import Sequence

import torch
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from adapters.base.kept_base import MergeError, check_linear_adapter, check_untied
from adapters.peft.host import TensorTrainPeftHost
from adapters.sharded import check_whole


def check_mergeable(model: nn.Module, names: Sequence[str] | None, safe_merge: bool, unload: bool = False) -> None:
    """Check that a merge can be done; see above.

    Args:
        names: the adapters to merge; None for the active ones.
        unload: whether a plain model is made.

    Raises:
        MergeError: it cannot. The model is unchanged.
    """
    check_whole(model)
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, TensorTrainPeftHost)}
    changed = {path: layer.changed_parameters(_to_merge(layer, names)) for path, layer in layers.items()}
    check_untied(model, ((path, parameter) for path, parameters in changed.items() for parameter in parameters))
    for path, layer in model.named_modules():
        if path in layers:
            _check_layer(path, layer, names, safe_merge, unload)
        elif unload and names is not None and isinstance(layer, AuxiliaryTrainingWrapper):
            _check_whole_module(path, layer, names)


def warn_of_lost(model: nn.Module, names: Sequence[str] | None) -> None:
    """Name the active adapters that are neither merged nor named, in a warning."""
    lost: set[str] = set()
    for layer in model.modules():
        if names is not None and isinstance(layer, TensorTrainPeftHost) and not layer.disable_adapters:
            lost |= (set(layer.active_adapters) & set(layer.tt_lora_delta)) - {*layer.merged_adapters, *names}
    if lost:
        warnings.warn(
            f"The plain model keeps merged adapters only; got adapter_names={list(names or ())} with the active "
            f"adapters {sorted(lost)} besides, which are lost: name them too, or make only the merged ones active.",
            stacklevel=3,
        )


def warn_of_rounding(model: nn.Module, names: Sequence[str] | None) -> None:
    """Say in a warning that a merge of ``names`` rounds to the levels of quantised weights."""
    rounded = [
        layer.quantization_backend.backend_name
        for layer in model.modules()
        if isinstance(layer, TensorTrainPeftHost) and layer.quantization_backend and _to_merge(layer, names)
    ]
    if rounded:
        warnings.warn(
            f"Deltas are rounded when they are merged into quantised weights; got {len(rounded)} of {rounded[0]}: "
            "evaluate unmerged, or load the base without quantisation and merge there.",
            stacklevel=3,
        )


def _to_merge(layer: TensorTrainPeftHost, names: Sequence[str] | None) -> list[str]:
    """The adapters of a layer that a merge of ``names`` adds to its weight."""
    wanted = layer.active_adapters if names is None else names
    return [name for name in wanted if name in layer.tt_lora_delta and name not in layer.merged_adapters]


def _check_layer(
    path: str, layer: TensorTrainPeftHost, names: Sequence[str] | None, safe_merge: bool, unload: bool
) -> None:
    new = _to_merge(layer, names)
    for name in new:
        layer.check_weight_can_change(f"{name!r} at {path}")
        for at, delta in layer.deltas_at(path, name).items():
            check_linear_adapter(delta, f"{name!r} at {at}")
    shifted = [name for name in (*layer.merged_adapters, *new) if layer.adds_missing_bias(name)]
    if unload and shifted:
        raise MergeError(
            "A linear without a bias cannot get one permanently, as the model's configuration has none and "
            f"it would be lost when the model is saved; got {shifted[0]!r}, which has a bias at {path}: "
            "keep the adapter, or train it with delta_bias='none'."
        )
    if safe_merge and new:
        layer.merged_tensors(new, safe_merge=True)


def _check_whole_module(path: str, wrapper: AuxiliaryTrainingWrapper, names: Sequence[str]) -> None:
    """Check that the module which the plain model gets, that of the active adapter, is the one of a named adapter."""
    active = next((name for name in wrapper.active_adapters if name in wrapper._adapters), None)
    named = [name for name in names if name in wrapper._adapters] or [None]
    kept, *others = (_tensors(wrapper, name) for name in (active, *named))
    if not all(torch.equal(kept[key], other[key]) for other in others for key in kept):
        owner = "the original one" if active is None else f"that of {active!r}"
        raise MergeError(
            f"The plain model has the modules_to_save of the adapters that are merged; got {list(names)} while {path} "
            f"is {owner}, with other values: call set_adapter with the names first."
        )


def _tensors(wrapper: AuxiliaryTrainingWrapper, name: str | None) -> dict[str, Tensor]:
    """Return the tensors of the whole module of one adapter, or of the original one."""
    return (wrapper.original_module if name is None else wrapper.modules_to_save[name]).state_dict()
