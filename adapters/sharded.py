"""Models whose Parameters are sharded over processes by FSDP2 (``torch.distributed.fsdp.fully_shard``).

DeepSpeed's ZeRO-3 shards too: a Parameter is empty between the passes through its module, and what gathers and saves it
is DeepSpeed's engine.

    Parameter        a DTensor: the global shape, of which this process holds some rows
    forward pass     each block gathers its Parameters before it runs and drops them afterwards
    state_dict       DTensors, also where a block still holds what it has gathered

All processes must ask for a whole tensor together, as each sends its rows to the others.
"""

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from adapters.base.kept_base import MergeError


def is_sharded(model: nn.Module) -> bool:
    """Whether processes share the Parameters of the model."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def is_partitioned(parameter: Tensor) -> bool:
    """Whether ZeRO-3 shares a Parameter out, so that it may be empty here."""
    return hasattr(parameter, "ds_id")


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered from all processes; one that is not sharded as it is."""
    if not isinstance(tensor, DTensor):
        return tensor
    gathered = tensor.full_tensor()
    return gathered.wait() if hasattr(gathered, "wait") else gathered  # asynchronous on a CPU


def local(tensor: Tensor) -> Tensor:
    """The rows that this process holds; a tensor that is not sharded as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def as_sharded(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, equal in all processes, sharded as ``like`` of the same shape; as it is if that is not."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def writes(model: nn.Module) -> bool:
    """Whether this process writes the files of the model: of those that share its Parameters, the first."""
    return not is_sharded(model) or torch.distributed.get_rank() == 0


def check_whole(model: nn.Module) -> None:
    """Check that a merge finds whole weights.

    Raises:
        MergeError: the model is sharded.
    """
    if is_sharded(model) or any(map(is_partitioned, model.parameters())):
        raise MergeError(
            "A merge writes whole weights; got a model sharded by FSDP or ZeRO-3, which drop what they have gathered: "
            "evaluate it unmerged, or save the adapters and merge them into a model of one process."
        )
