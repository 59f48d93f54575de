"""The active deltas of a live model, as trains and biases by path.

    adapters.attach     AdaptedMap at the path; ``beside`` has a controller for each adapter, with an active module
    our tuner in PEFT   TensorTrainPeftLinear at the path; ``tt_lora_delta`` has a module for each adapter name. Site
                        modes too give one train for each linear

Several deltas at one linear are summed. Only tt_lora is supported: adapters around or after a linear depend on its
weight, and a delta with an activation between its cores is not a matrix.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.algebra.sites import Sites, sites_of, stacked
from adapters.base.adapted_linear import AdaptedMap
from adapters.compiled import original_path, uncompiled
from adapters.injection import attachments
from adapters.kinds.tensor_train import TensorTrainDelta, TensorTrainLoRAConfig
from adapters.saved.folder import PEFT_PREFIX
from adapters.tensor_train.modes import Mode, has_sites
from adapters.tensor_train.principal import PrincipalTensorTrainDelta
from adapters.validation import ConfigurationError

PEFT_CLASSES = {"BaseTunerLayer", "AuxiliaryTrainingWrapper"}
"""Base classes of the modules that PEFT puts in place of others; by name, as PEFT is optional."""

Parts = tuple[dict[str, t3.TensorTrain], dict[str, Tensor], Sites | None]
"""T and c by path, scaling folded in, float64. With sites there is one T for the whole model, under ``ONE_TENSOR``."""
ONE_TENSOR = "one tensor"


def live_deltas(model: nn.Module) -> Parts:
    """Return the active deltas of the model; an adapter with site modes is one train.

    Raises:
        ConfigurationError: none is active, or an adapter is not a linear tt_lora.
    """
    model = uncompiled(model)
    for attachment in attachments(model):
        check_kind(attachment.config.kind)
        if attachment.config.loops is not None:
            raise ConfigurationError(
                f"Algebra supports one delta for each linear; got loops={attachment.config.loops} in "
                f"{attachment.name!r}, which has one for each loop: attach it without loops."
            )
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
            f"Deltas are read from active adapters; got a {type(model).__name__} with none active, but adapters "
            f"for the tasks {tasks}: attach tt_lora, or choose one of the tasks."
        )
    return trains, biases, None


def check_kind(kind: str) -> None:
    """Check that a kind is a delta beside linears."""
    if kind != TensorTrainLoRAConfig.kind:
        raise ConfigurationError(
            f"Algebra supports the kind {TensorTrainLoRAConfig.kind!r}, which does not depend on the weight; got "
            f"{kind!r}: save the tt_lora of this model alone."
        )


def _check_peft(model: nn.Module) -> None:
    """Check that PEFT has put nothing but our tuner into the model."""
    for path, module in model.named_modules():
        if not hasattr(module, "tt_lora_delta") and PEFT_CLASSES & {base.__name__ for base in type(module).__mro__}:
            raise ConfigurationError(
                "In a model adapted by PEFT only the deltas of our tuner are read; got a "
                f"{type(module).__name__} at {path}: save LoRA and read the folder with Deltas.read, and train without "
                "modules_to_save."
            )


@torch.no_grad()
def delta_of(path: str, adapter: TensorTrainDelta) -> tuple[t3.TensorTrain, Tensor | None]:
    """Return s T (out, in), or s (T - T_0), and s c (out,) or None of one module, in float64."""
    if not adapter.is_linear:
        raise ConfigurationError(
            f"Algebra supports linear adapters; got core_activation={adapter.linear.core_activation!r} at {path}: "
            "train without it."
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
            f"Several adapters of one linear must have the same raw shape to be summed; got {a.raw_shape} and "
            f"{b.raw_shape} at {path}: give both the same raw_shape, or save each and add them by "
            'adapters.combine(folders, shape="low_rank", output=...).'
        )
    return a + b


def acting(model: nn.Module) -> Iterator[tuple[str, TensorTrainDelta]]:
    """Yield the path of each linear with an active or merged delta, and the delta's module."""
    for compiled_path, module in model.named_modules():
        path = original_path(compiled_path)
        if isinstance(module, AdaptedMap):
            for controller in module.beside.values():
                if controller.active is not None:
                    yield path, controller.active
        elif hasattr(module, "tt_lora_delta") and not module.disable_adapters:
            for name in dict.fromkeys([*module.merged_adapters, *module.active_adapters]):
                if name in module.tt_lora_delta and isinstance(module.tt_lora_delta[name], nn.ModuleDict):
                    raise ConfigurationError(
                        f"Algebra supports one delta for each linear; got {name!r} with deltas for each expert at "
                        f"{path.removeprefix(PEFT_PREFIX)}: train an adapter without target_parameters."
                    )
                if name in module.tt_lora_delta and isinstance(module.tt_lora_delta[name], TensorTrainDelta):
                    yield path.removeprefix(PEFT_PREFIX), module.tt_lora_delta[name]
