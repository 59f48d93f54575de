"""calibrate_scaling: the scaling of ``adapters.tensor_train.scaling`` from the gradients of a real batch.

    ours       D = sum over the zero cores of |dL/dG_z|                             at the present scaling
    LoRA       E D = alpha sqrt(2 / pi) / sqrt(3 in) sum_i |dL/dW_i|                alpha = 16, over its random A
               (out, in) dL/dW = dL/dy^T x at the delta's place, W_i a row of W

Every scaling of an adapter is multiplied by LoRA's D over ours, one factor for all its places. Nothing else changes: as
the zero cores are zero, the model computes the same as before.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adapters.compiled import uncompiled
from adapters.injection import attachments
from adapters.merging import is_merged
from adapters.tensor_train.delta import TensorTrainDelta
from adapters.tensor_train.scaling import LORA_ALPHA, four_digits
from adapters.validation import ConfigurationError
from adapters.zero_cores import active_deltas, zero_core


def calibrate_scaling(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, float]:
    """Set the scalings of the active TT deltas so that their first step is that of LoRA r = 8, alpha = 16 on a batch.

    Args:
        model: with adapters that have not been trained, by ``attach`` or by the tuner in ``adapters.peft``.
        batch: keyword arguments of its forward, with labels, so that it returns a loss; 100 rows are enough. The
            gradients of all adapted weights are kept until the end, in float32.

    Returns:
        The factor by which the scalings of each adapter were multiplied. The numbers are in the configuration of the
        adapter, and are saved with it.

    Raises:
        ConfigurationError: there is nothing to calibrate, or the adapters are merged or trained, belong to several
            tasks, start at a principal part, or have no gradient. The model is unchanged.
    """
    model = uncompiled(model)
    named = list(active_deltas(model))
    _check(model, named)
    ours, gradients = _gradients(model, [delta for _, delta in named], batch)
    factors = {}
    for name in dict.fromkeys(name for name, _ in named):
        deltas = [delta for other, delta in named if other == name]
        cores = {id(core): ours[id(core)] for core in (zero_core(delta.linear) for delta in deltas)}
        theirs = sum(_of_lora(gradients[delta]) for delta in deltas if delta in gradients)
        factors[name] = theirs / sum(cores.values()) if sum(cores.values()) > 0 else math.nan
        if not 0 < factors[name] < math.inf:
            raise _refusal("have a finite gradient at their zero core", f"none at {name!r}", "check batch and scaling")
    for name, factor in factors.items():
        _multiply(model, name, factor, [delta for other, delta in named if other == name])
    return factors


def _check(model: nn.Module, named: list[tuple[str, TensorTrainDelta]]) -> None:
    if not named:
        raise _refusal("be TT deltas", f"a {type(model).__name__} without one that is active", "attach tt_lora")
    if is_merged(model) or any(getattr(module, "merged_adapters", None) for module in model.modules()):
        raise _refusal("be unmerged", "merged ones", "unmerge them first")
    names = [attachment.name for attachment in attachments(model)]
    for name, delta in named:
        core = zero_core(delta.linear)
        if core is None:
            raise _refusal("have a core that starts at zero", 'init="principal"', "leave its scaling at 1")
        if core.any():
            raise _refusal("not be trained yet", f"a zero core of {name!r} that is not zero", "calibrate first")
        if not core.requires_grad:
            raise _refusal("train", f"{name!r}, which is frozen", "load it with is_trainable=True")
        if names.count(name) > 1:
            fix = "calibrate the first one alone, and attach the others with its configuration in attachments(model)"
            raise _refusal("belong to one task", f"{name!r}, which belongs to several", fix)


def _gradients(
    model: nn.Module, deltas: list[TensorTrainDelta], batch: Mapping[str, Tensor]
) -> tuple[dict[int, float], dict[TensorTrainDelta, Tensor]]:
    """Return the sum of |gradient| of each zero core by its id, and dL/dW (out, in) by delta, in evaluation mode."""
    gradients: dict[TensorTrainDelta, Tensor] = {}

    def keep(delta: TensorTrainDelta, args: tuple[Tensor], y: Tensor) -> None:
        x = args[0].detach().flatten(0, -2).float()

        def add(gradient: Tensor) -> None:
            product = gradient.flatten(0, -2).float().T @ x  # (out, tokens) x (tokens, in)
            gradients[delta] = gradients[delta] + product if delta in gradients else product

        y.register_hook(add)

    hooks = [delta.register_forward_hook(keep) for delta in deltas]
    modes = {module: module.training for module in model.modules()}
    cores = list({id(core): core for core in (zero_core(delta.linear) for delta in deltas)}.values())
    try:
        model.eval()
        with torch.enable_grad():
            loss = getattr(model(**batch), "loss", None)
            if loss is None:
                raise _refusal("have a loss", "a batch for which the model returns none", "pass labels in the batch")
            found = torch.autograd.grad(loss, cores, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    sizes = [0.0 if gradient is None else gradient.abs().sum().item() for gradient in found]
    return {id(core): size for core, size in zip(cores, sizes, strict=True)}, gradients


def _of_lora(gradient: Tensor) -> float:
    """Return the mean of LoRA's D over its random A, for dL/dW (out, in)."""
    rows = gradient.norm(dim=1).sum().item()
    return LORA_ALPHA * math.sqrt(2 / math.pi) / math.sqrt(3 * gradient.shape[1]) * rows


def _multiply(model: nn.Module, name: str, factor: float, deltas: list[TensorTrainDelta]) -> None:
    """Multiply the scalings of one adapter, in its modules and in its configuration."""
    for delta in deltas:
        delta.scaling = four_digits(factor * delta.scaling)

    def scaled(config: Any) -> dict[str, Any]:
        pattern = {key: four_digits(factor * value) for key, value in (config.scaling_pattern or {}).items()}
        return {"scaling": four_digits(factor * config.scaling), "scaling_pattern": pattern or None}

    if name in (config := getattr(model, "peft_config", {})):
        for key, value in scaled(config[name]).items():
            setattr(config[name], key, value)
    else:
        model.adapter_attachments = [
            replace(attachment, config=replace(attachment.config, **scaled(attachment.config)))
            if attachment.name == name
            else attachment
            for attachment in attachments(model)
        ]


def _refusal(rule: str, given: str, fix: str) -> ConfigurationError:
    return ConfigurationError(f"Adapters that are calibrated must {rule}; got {given}: {fix}.")
