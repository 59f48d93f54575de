"""The tensors of a model that a checkpoint holds, by their names in the model."""

import torch
from torch import Tensor, nn

from adapters.base.controller import AdapterController
from adapters.compiled import uncompiled
from adapters.freezing import adapter_parameters
from adapters.merging import is_merged, merge, unmerge
from adapters.saved.folder import CheckpointError
from adapters.sharded import as_sharded, whole
from adapters.validation import nearest_name


def adapter_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, detached: those of all adapters and the trainable ones of the base.

    They are whole: processes that share a sharded model call this together.
    """
    model = uncompiled(model)
    own = adapter_parameters(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own[name] = parameter
    state = model.state_dict()
    names = sorted({*own, *(adapter_buffers(model).keys() & state.keys())})
    return {name: whole(state[name].detach()) for name in names}


def adapter_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of adapters by name, each once; PEFT keeps fixed projections there."""
    below = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, AdapterController))
    return {name: buffer for name, buffer in model.named_buffers() if name.startswith(below)}


def check_tensors(expected: dict[str, torch.Size], tensors: dict[str, Tensor], where: str) -> None:
    """Check that names and shapes are exactly the expected ones.

    Args:
        expected: the shapes by name.
        tensors: those given.
        where: their origin, for the message.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape.
    """
    for name in expected:
        if name not in tensors:
            raise CheckpointError(
                f"A checkpoint must hold every adapter tensor; got none for {name!r} in {where}: save it again."
            )
    for name, tensor in tensors.items():
        if name not in expected:
            raise CheckpointError(
                f"A checkpoint must hold adapter tensors of this model only; got {name!r} in {where}: "
                f"{nearest_name(name, expected)}"
            )
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"Tensor {name!r} has shape {tuple(expected[name])} in this model; got {tuple(tensor.shape)} in "
                f"{where}: use the configuration it was saved with."
            )


@torch.no_grad()
def load_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy checked tensors into the parameters and buffers of the same names, and merge again if it was merged."""
    was_merged = is_merged(model)
    unmerge(model)
    targets = model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        targets[name].copy_(as_sharded(tensor, targets[name]))
    if was_merged:
        merge(model)
