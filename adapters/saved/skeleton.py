"""A model with the adapters of a folder, to check whether they fit before the model itself is changed."""

import copy
from pathlib import Path

import torch
from torch import nn

from adapters.configuration import AdapterConfig
from adapters.injection import attach
from adapters.saved.folder import CheckpointError
from adapters.validation import ConfigurationError


def model_with_adapters(
    model: nn.Module, adapters: list[tuple[str | None, AdapterConfig]], directory: Path
) -> nn.Module:
    """Return a copy of ``model`` with these adapters, for the names and shapes of their tensors.

    Its weights are on the meta device; if one of the adapters is initialised from them, they are those of ``model``.

    Raises:
        CheckpointError: an adapter does not fit the model.
    """
    shares = any(config.reads_weights for _, config in adapters)
    own = {
        id(p): nn.Parameter(
            p.data if shares else torch.empty(p.shape, dtype=p.dtype, device="meta"), requires_grad=p.requires_grad
        )
        for p in model.parameters()
    }
    skeleton = copy.deepcopy(model, own)
    try:
        for task, config in adapters:
            attach(skeleton, config, task)
    except ConfigurationError as error:
        raise CheckpointError(
            f"A saved adapter must fit the model that it is loaded into; got one in {directory} that does not "
            f"({str(error).rstrip('.')}): load the base model it was trained on."
        ) from None
    return skeleton
