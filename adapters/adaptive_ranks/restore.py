"""fit_ranks: the ranks of a saved folder given to a model before it is loaded, where only ranks differ."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from adapters.adaptive_ranks.trains import adaptable_trains, count_anew
from adapters.checkpoint import adapter_state_dict, check_tensors, read_folder
from adapters.configuration import AdapterConfig
from adapters.injection import attachments
from adapters.merging import unmerge
from adapters.tensor_train_fields import TensorTrainFields


def fit_ranks(model: nn.Module, directory: str | os.PathLike) -> None:
    """Give the trains of ``model`` the ranks that those in a folder of ``adapters.save`` have; ``load`` is next.

    Where the adapters there differ in more than their ranks nothing is done, and ``load`` says in what. The cores hold
    zeros where ranks have changed; an optimizer that knows the model already keeps its old state.

    Raises:
        CheckpointError: files are missing or unreadable, or tensors do not fit. The model is as it was.
    """
    directory = Path(directory)
    _, saved, tensors = read_folder(directory)
    present = attachments(model)
    here = [(attachment.task, _without_ranks(attachment.config)) for attachment in present]
    if here != [(task, _without_ranks(config)) for task, config in saved] or all(
        attachment.config == config for attachment, (_, config) in zip(present, saved, strict=True)
    ):
        return
    names = {parameter: name for name, parameter in model.named_parameters()}
    layers = [layer for group in adaptable_trains(model)[0] for layer in group.layers]
    expected = {name: tensor.shape for name, tensor in adapter_state_dict(model).items()}
    for layer in layers:
        for parameter in layer.cores:
            there = tensors.get(names[parameter])
            if there is not None and there.dim() == 4 and there.shape[1:3] == parameter.shape[1:3]:
                expected[names[parameter]] = there.shape
    check_tensors(expected, tensors, str(directory))
    unmerge(model)
    for layer in layers:
        layer.hold([torch.zeros(expected[names[parameter]]) for parameter in layer.cores])
    model.adapter_attachments = [
        replace(attachment, config=config) for attachment, (_, config) in zip(present, saved, strict=True)
    ]
    count_anew(model)


def _without_ranks(config: AdapterConfig) -> AdapterConfig:
    return replace(config, rank_pattern=None) if isinstance(config, TensorTrainFields) else config
