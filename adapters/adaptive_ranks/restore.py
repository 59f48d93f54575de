"""fit_ranks: give a model the ranks of a saved folder before loading it, if only ranks differ."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import t3nsor as t3
from adapters.adaptive_ranks.trains import adaptable_trains, fixed_ranks_reason, refresh_counts
from adapters.compiled import uncompiled
from adapters.configuration import AdapterConfig
from adapters.injection import attachments
from adapters.merging import unmerge
from adapters.saved.checkpoint import check_architecture, read_checkpoint
from adapters.saved.state import adapter_state_dict, check_tensors
from adapters.tensor_train.fields import TensorTrainFields


def fit_ranks(model: nn.Module, directory: str | os.PathLike) -> None:
    """Give the trains of ``model`` the ranks of a folder of ``adapters.save``, so that ``load`` fits.

    If the adapters differ in more than their ranks nothing is done, and ``load`` reports the difference. Cores whose
    ranks have changed are zero; the state of an existing optimizer is not changed.

    Raises:
        CheckpointError: files are missing or unreadable, the base model's architecture differs, or tensors do not fit.
            The model is unchanged.
    """
    model, directory = uncompiled(model), Path(directory)
    checkpoint = read_checkpoint(directory)
    saved, tensors = checkpoint.adapters, checkpoint.tensors
    check_architecture(model, checkpoint.architecture, directory)
    present = attachments(model)
    is_as_saved = all(a.config == config for a, (_, config) in zip(present, saved, strict=False))
    here = [(attachment.task, *_without_ranks(attachment.config)) for attachment in present]
    if is_as_saved or here != [(task, *_without_ranks(config)) for task, config in saved]:
        return
    names = {parameter: name for name, parameter in model.named_parameters()}
    layers = [layer for group in adaptable_trains(model)[0] for layer in group.layers]
    expected = {name: tensor.shape for name, tensor in adapter_state_dict(model).items()}
    changed = []
    for layer in layers:
        shapes = {name: tensors[name].shape for core in layer.cores if (name := names[core]) in tensors}
        if _fit(layer, list(shapes.values())) and any(shapes[name] != expected[name] for name in shapes):
            expected |= shapes
            changed.append(layer)
    check_tensors(expected, tensors, str(directory))
    unmerge(model)
    for layer in changed:
        layer.set_cores([torch.zeros(expected[names[parameter]]) for parameter in layer.cores])
    model.adapter_attachments = [
        replace(attachment, config=config) for attachment, (_, config) in zip(present, saved, strict=True)
    ]
    refresh_counts(model)


def _without_ranks(config: AdapterConfig) -> tuple[type[AdapterConfig], dict[str, Any]]:
    """Return the kind and the fields, without rank and rank_pattern if ranks can change."""
    can_change = isinstance(config, TensorTrainFields) and fixed_ranks_reason(config) is None
    left_out = {"rank", "rank_pattern"} if can_change else set()
    return type(config), {name: value for name, value in vars(config).items() if name not in left_out}


def _fit(layer: t3.TTLinear, shapes: list[torch.Size]) -> bool:
    """Return whether these are the shapes of the cores of a train for a layer."""
    if len(shapes) != len(layer.cores) or any(len(shape) != 4 for shape in shapes):
        return False
    factors = tuple(zip(*((m, n) for _, m, n, _ in shapes), strict=True))
    left, right = [shape[0] for shape in shapes], [shape[3] for shape in shapes]
    return factors == layer.raw_shape and [*left, 1] == [1, *right]
