"""Deltas stay float32 at least, whoever casts them.

    get_peft_model(base, config)             float32
    SFTTrainer(model, peft_config=config)    TRL casts what trains beside a bitsandbytes base to bfloat16
    train(), load_state_dict                 float32 again, before the first step and before saved values are loaded

Several processes that share a model add gradients in the dtype that they find when they wrap it. A Parameter that is
cast later would get wrong ones, so they are told to cast first.
"""

from collections.abc import Collection

import torch
import torch.distributed as dist
from torch import nn

from adapters.peft.layer import TensorTrainPeftLayer
from adapters.validation import ConfigurationError

NARROW = (torch.bfloat16, torch.float16)


def widen(model: nn.Module, adapter_names: Collection[str]) -> None:
    """Cast the Parameters of these adapters that are narrower than float32 to float32, in place."""
    for parameter in _narrow(model, adapter_names):
        parameter.data = parameter.data.float()


def widen_alone(model: nn.Module, adapter_names: Collection[str]) -> None:
    """Widen deltas of a model with quantised linears, unless other processes may have been told the narrower dtype.

    Raises:
        ConfigurationError: they may.
    """
    if not any(layer.quantization_backend for layer in _layers(model)):
        return
    narrow = _narrow(model, adapter_names)
    if narrow and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise ConfigurationError(
            "Deltas are float32 before several processes share them, as they add gradients in the dtype that they find "
            f"then; got {narrow[0].dtype}, to which TRL's SFTTrainer casts beside a quantised base: call "
            "trainer.model.base_model.widen_deltas() before trainer.train()."
        )
    widen(model, adapter_names)


def _layers(model: nn.Module) -> list[TensorTrainPeftLayer]:
    return [layer for layer in model.modules() if isinstance(layer, TensorTrainPeftLayer)]


def _narrow(model: nn.Module, adapter_names: Collection[str]) -> list[nn.Parameter]:
    held = [layer.tt_lora_delta for layer in _layers(model)]
    deltas = [deltas[name] for deltas in held for name in adapter_names if name in deltas]
    return [parameter for delta in deltas for parameter in delta.parameters() if parameter.dtype in NARROW]
