"""The base that a saved folder names, as a model without weights: what fits it can be told without memory."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from adapters.base.sublayers import find_sublayers
from adapters.saved.checkpoint import CheckpointError


def base_without_weights(architecture: dict[str, Any], directory: Path) -> nn.Module:
    """A T5 of this architecture on the meta device, for the folder that says so.

    Raises:
        CheckpointError: the architecture is no T5's.
    """
    try:
        config = AutoConfig.for_model(**architecture)
        with torch.device("meta"):
            model = AutoModelForSeq2SeqLM.from_config(config)
        find_sublayers(model)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"A folder of adapters.save holds deltas of a T5; the base of {directory} is {architecture!r} ({error}): "
            "use another base model, or load the adapter into its model and take Deltas.of(model)."
        ) from error
    return model
