"""The deltas that act in a live model, as trains and biases by path.

    adapters.attach     AdaptedLinear at the path, in ``beside`` a controller for each adapter, its active module
    our tuner in PEFT   TensorTrainPeftLinear at the path, in ``tt_lora_delta`` a module for each adapter name; site
                        modes too give a train for each linear there

Where several act at one linear they are summed. Only tt_lora is a delta of its linear alone: what stands around or
after one depends on the weight, and what has an activation inside is no matrix.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.algebra.sites import Sites, sites_of, stacked
from adapters.base.adapted_linear import AdaptedLinear
from adapters.compiled import uncompiled
from adapters.injection import attachments
from adapters.kinds.tensor_train import TensorTrainDelta, TensorTrainLoRAConfig
from adapters.tensor_train.modes import Mode, has_sites
from adapters.tensor_train.principal import PrincipalTensorTrainDelta
from adapters.validation import ConfigurationError

PEFT_PREFIX = "base_model.model."
"""What a PeftModel puts before the paths of its base."""
PEFT_CLASSES = {"BaseTunerLayer", "AuxiliaryTrainingWrapper"}
"""What PEFT puts in place of modules is of one of these classes; by name, as PEFT need not be there."""


Parts = tuple[dict[str, t3.TensorTrain], dict[str, Tensor], Sites | None]
"""T and c by path, s folded in, float64. With sites there is one T, for the whole model, under ``ONE_TENSOR``."""
ONE_TENSOR = "one tensor"


def live_deltas(model: nn.Module) -> Parts:
    """What acts in the model; one adapter with site modes as one train.

    Raises:
        ConfigurationError: there are none, or other adapters than linear tt_lora.
    """
    model = uncompiled(model)
    for attachment in attachments(model):
        check_kind(attachment.config.kind)
    _check_peft(model)
    present = list(acting(model))
    names = {attachment.name: attachment.config.modes for attachment in attachments(model)}
    if present and len(names) == 1 and has_sites(*names.values()):
        return _one_tensor(*names.values(), dict(present))
    trains: dict[str, t3.TensorTrain] = {}
    biases: dict[str, Tensor] = {}
    for path, adapter in present:
        train, bias = delta_of(path, adapter)
        trains[path] = _sum(path, trains[path], train) if path in trains else train
        if bias is not None:
            biases[path] = biases[path] + bias if path in biases else bias
    if not trains:
        tasks = sorted({str(attachment.task) for attachment in attachments(model)})
        raise ConfigurationError(
            f"Deltas are those of tt_lora that act; got a {type(model).__name__} in which none does, with "
            f"adapters for the tasks {tasks}: attach tt_lora, or name one of the tasks."
        )
    return trains, biases, None


def check_kind(kind: str) -> None:
    """Refuse, by name, the kinds that are no sum of deltas beside linears."""
    if kind != TensorTrainLoRAConfig.kind:
        raise ConfigurationError(
            f"Only a change of a linear that does not depend on its weight is a vector, so algebra takes the kind "
            f"{TensorTrainLoRAConfig.kind!r}; got {kind!r}: save the tt_lora of this model by itself."
        )


def _check_peft(model: nn.Module) -> None:
    """Refuse, by class and path, what PEFT trains in the model beside the deltas of our tuner."""
    for path, module in model.named_modules():
        if not hasattr(module, "tt_lora_delta") and PEFT_CLASSES & {base.__name__ for base in type(module).__mro__}:
            raise ConfigurationError(
                "Of a model that PEFT has adapted only the deltas of our tuner are read; got a "
                f"{type(module).__name__} at {path}: read a saved folder of LoRA by Deltas.read, and leave out "
                "modules_to_save."
            )


@torch.no_grad()
def delta_of(path: str, adapter: TensorTrainDelta) -> tuple[t3.TensorTrain, Tensor | None]:
    """s T (out, in), or s (T - T_0), and s c (out,) or None of one module, float64."""
    if not adapter.is_linear:
        raise ConfigurationError(
            f"Only linear adapters are vectors; got core_activation={adapter.linear.core_activation!r} at "
            f"{path}: train without it."
        )
    train = adapter.linear.network().to(torch.float64).to_train()
    if isinstance(adapter, PrincipalTensorTrainDelta):
        train = train - adapter.origin.network().to(torch.float64).to_train()
    bias = adapter.linear.full_bias()
    return train * adapter.scaling, None if bias is None else adapter.scaling * bias.double()


def _one_tensor(modes: tuple[Mode, ...], adapters: dict[str, TensorTrainDelta]) -> Parts:
    biases = {path: bias for path, adapter in adapters.items() if (bias := delta_of(path, adapter)[1]) is not None}
    sites = sites_of(modes, adapters)
    any_one = next(iter(adapters.values()))
    train = type(any_one.linear.network())(stacked(sites, adapters)).to_train()
    return {ONE_TENSOR: train * any_one.scaling}, biases, sites


def _sum(path: str, a: t3.TensorTrain, b: t3.TensorTrain) -> t3.TensorTrain:
    if a.raw_shape != b.raw_shape:
        raise ConfigurationError(
            f"Two adapters of one linear are one delta where their raw shapes are one; at {path} they are "
            f"{a.raw_shape} and {b.raw_shape}: give both one raw_shape, or save them apart."
        )
    return a + b


def acting(model: nn.Module) -> Iterator[tuple[str, TensorTrainDelta]]:
    """The modules of deltas that act now, each with the path of its linear."""
    for path, module in model.named_modules():
        if isinstance(module, AdaptedLinear):
            for controller in module.beside.values():
                if controller.active is not None:
                    yield path, controller.active
        elif hasattr(module, "tt_lora_delta") and not module.disable_adapters:
            for name in module.active_adapters:
                if name in module.tt_lora_delta and isinstance(module.tt_lora_delta[name], TensorTrainDelta):
                    yield path.removeprefix(PEFT_PREFIX), module.tt_lora_delta[name]
