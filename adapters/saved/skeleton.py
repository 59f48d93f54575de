"""Models without weights, to check what fits a base model without allocating it."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from adapters.base.sublayers import find_sublayers
from adapters.configuration import AdapterConfig
from adapters.injection import attach
from adapters.saved.folder import CheckpointError
from adapters.validation import ConfigurationError


def base_without_weights(architecture: dict[str, Any], directory: Path) -> nn.Module:
    """Return a T5 of this architecture on the meta device.

    Args:
        architecture: from a folder of ``adapters.save``, or of a base model.
        directory: the folder, for the message.

    Raises:
        CheckpointError: the architecture is not that of a T5.
    """
    try:
        config = AutoConfig.for_model(**architecture)
        with torch.device("meta"):
            model = AutoModelForSeq2SeqLM.from_config(config)
        find_sublayers(model)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"A folder can be read without its model only for a T5; got the base {architecture!r} for {directory} "
            f"({str(error).rstrip('.')}): load the adapter into its model and use Deltas.of(model)."
        ) from error
    return model


def model_with_adapters(
    model: nn.Module, adapters: list[tuple[str | None, AdapterConfig]], directory: Path
) -> nn.Module:
    """Return a copy of ``model`` with these adapters, for the names and shapes of their tensors.

    It is on the meta device, or shares the weights of ``model`` if one of the adapters is initialised from them.

    Raises:
        CheckpointError: an adapter does not fit the model.
    """
    if any(config.reads_weights for _, config in adapters):
        own = {id(p): nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()}
        skeleton = copy.deepcopy(model, own)
    else:
        with torch.device("meta"):
            skeleton = type(model)(model.config)
    try:
        for task, config in adapters:
            attach(skeleton, config, task)
    except ConfigurationError as error:
        raise CheckpointError(
            f"A saved adapter must fit the model that it is loaded into; got one in {directory} that does not "
            f"({str(error).rstrip('.')}): load the base model it was trained on."
        ) from None
    return skeleton
