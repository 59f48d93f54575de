"""The labels of a head's outputs, saved with its adapters, so that an output never gets another meaning.

    adapter_config.json     "labels": ["not_equivalent", "equivalent"]        model.config.id2label, by output

Only for a model with a head whose outputs are named: transformers' default names LABEL_0, LABEL_1, ... mean nothing.
"""

from pathlib import Path
from typing import Any

from torch import nn

from adapters.base.heads import head_parameters
from adapters.saved.folder import CheckpointError, read_config

KEY = "labels"


def labels_of(model: nn.Module) -> list[str] | None:
    """The label of each output of the model's head; None if it has no head, or if they have no names."""
    return labels_of_config(getattr(model, "config", None)) if head_parameters(model) else None


def labels_of_config(config: Any) -> list[str] | None:
    """The label of each output in a model's configuration; None if they have no names."""
    names = getattr(config, "id2label", None) or {}
    labels = [names[output] for output in sorted(names)]
    return None if all(label == f"LABEL_{output}" for output, label in enumerate(labels)) else labels


def check_labels(model: nn.Module, saved: Any, directory: Path) -> None:
    """Check that the labels in a folder are those of ``model``, or that its outputs have no names.

    Raises:
        CheckpointError: they are others, or in another order.
    """
    present = labels_of(model)
    if saved is not None and present is not None and saved != present:
        raise CheckpointError(
            f"An output of a head keeps the label that it was trained for; got {saved} in {directory} and {present} in "
            "the model: load the base model with the id2label of the folder."
        )


def set_labels(model: nn.Module, saved: Any) -> None:
    """Name the outputs of ``model`` as in a folder; nothing is done if that has no labels."""
    if saved is not None:
        model.config.id2label = dict(enumerate(saved))
        model.config.label2id = {label: output for output, label in enumerate(saved)}


def saved_labels(directory: Path) -> tuple[str, ...] | None:
    """The labels in a folder of ``adapters.save``; None if it has none.

    Raises:
        CheckpointError: there is no adapter in the folder.
    """
    saved = read_config(directory).get(KEY)
    return None if saved is None else tuple(saved)
