"""The trained model as a plain folder of transformers, which loads without this project, if it has no networks."""

from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

import adapters
from adapters.factorized.layers import factorized_modules
from adapters.saved.folder import create_folder


def write_model(model: nn.Module, tokenizer: PreTrainedTokenizerBase | None, destination: Path) -> None:
    """Write a model of transformers and its tokenizer, completely or not at all.

    Raises:
        adapters.CheckpointError: the destination is neither new nor an empty folder.
    """

    def write(new: Path) -> None:
        model.save_pretrained(new)
        if tokenizer is not None:
            tokenizer.save_pretrained(new)

    create_folder(destination, write)


def made_dense(model: nn.Module) -> nn.Module:
    """Replace networks in place of weights by dense weights, in place, and return the model; others are as they are."""
    return adapters.densify(model) if factorized_modules(model) else model
