"""Deltas in folders of ``adapters.save``: read and written through a model without weights.

    architecture   ->  the base on the meta device, without memory  ->  attach what the folder says
    read           the folder's tensors take the adapters' places; the deltas are those of that model (``live``)
    write          one tt_lora that covers the linears; cores as tensors of its modules; ``adapters.save``

A configuration says where adapters sit as stacks x layers x sublayers x names of linears. The smallest such product
that holds all linears with a delta is written; one in it without a delta gets a train that is zero and can learn.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.active_task import set_active_task
from adapters.algebra.description import shape_and_rank
from adapters.algebra.live import Parts, acting, check_kind, live_deltas
from adapters.algebra.low_rank import with_useful_ranks
from adapters.algebra.sites import Sites
from adapters.base.controller import ALL_TASKS
from adapters.base.sublayers import Sublayer, find_sublayers
from adapters.injection import attach
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.saved.checkpoint import CheckpointError, adapter_state_dict, check_tensors, read_folder, save
from adapters.saved.model_card import remove_model_card
from adapters.saved.skeleton import base_without_weights
from adapters.validation import ConfigurationError


def read_native(directory: Path, task: str | None) -> Parts:
    """What acts in the folder for this task."""
    architecture, saved, tensors = read_folder(directory)
    try:
        for _, config in saved:
            check_kind(config.kind)
        model = base_without_weights(architecture, directory)
        with torch.device("meta"):
            for saved_task, config in saved:
                attach(model, config, saved_task)
        expected = {name: tensor.shape for name, tensor in adapter_state_dict(model).items()}
        check_tensors(expected, tensors, str(directory))
        model.load_state_dict(tensors, strict=False, assign=True)
        set_active_task(model, task)
        return live_deltas(model)
    except ConfigurationError as error:
        raise CheckpointError(f"The adapter in {directory} cannot be read as deltas of linears. {error}") from error


def write_native(
    directory: Path, like: Path, trains: Mapping[str, t3.TensorTrain], biases: Mapping[str, Tensor]
) -> None:
    """Save these deltas for the base of ``like``, float32, as one tt_lora for all tasks."""
    architecture, saved, _ = read_folder(like)
    model = base_without_weights(architecture, like)
    sublayers = find_sublayers(model)
    placement = _placement(sublayers, trains, like)
    paths = [place.path for place in TensorTrainLoRAConfig(**placement).places(sublayers)]
    sizes = {path: tuple(model.get_submodule(path).weight.shape) for path in paths}
    for path, train in trains.items():
        if train.shape != sizes[path]:
            raise CheckpointError(
                f"A delta has the size (out, in) of its linear; got one of {train.shape} for {path}, which has "
                f"{sizes[path]} in the base of {like}: write it like a folder of its own base."
            )
    held = {
        path: with_useful_ranks(trains[path]) if path in trains else zero_train(sizes[path], trains) for path in paths
    }
    dropout = next((config.dropout for _, config in saved if hasattr(config, "dropout")), 0.0)
    bias = "dense" if biases else "none"
    config = TensorTrainLoRAConfig(**placement, **shape_and_rank(held), bias=bias, dropout=dropout)
    with torch.device("meta"):
        attach(model, config)
    state: dict[str, Tensor] = {}
    for path, train in held.items():
        module = f"{path}.beside.{config.kind}.tasks.{ALL_TASKS}.linear"
        for k, core in enumerate(train.cores):
            state[f"{module}.cores.{k}"] = core.float().contiguous()
        if biases:
            state[f"{module}.bias"] = biases.get(path, torch.zeros(sizes[path][0])).float()
    _save(model, state, directory)


def write_one_tensor(
    directory: Path, like: Path, train: t3.TensorTrain, biases: Mapping[str, Tensor], sites: Sites
) -> None:
    """Save this train for the base of ``like``, float32, with the site modes that ``like`` has."""
    architecture, saved, _ = read_folder(like)
    config = next((config for _, config in saved if getattr(config, "modes", None) == sites.modes), None)
    train = with_useful_ranks(train)
    rows, columns = train.raw_shape
    raw_shape = tuple(m // count for m, count in zip(rows, sites.counts, strict=True)), columns
    try:
        if config is None:
            raise ConfigurationError(f"It has no adapter with the modes {list(sites.modes)}.")
        bias = "dense" if biases else "none"
        config = TensorTrainLoRAConfig(
            **{key: getattr(config, key) for key in ("stacks", "layers", "sublayers", "target_modules", "dropout")},
            modes=sites.modes,
            raw_shape=raw_shape,
            rank=train.ranks[1:-1],
            bias=bias,
        )
        model = base_without_weights(architecture, like)
        with torch.device("meta"):
            attach(model, config)
    except ConfigurationError as error:
        raise CheckpointError(
            f"One tensor for a whole model is written like a tensor train with its site modes; {like} does not fit. "
            f"{error} Write per_linear() instead, or like another folder."
        ) from error
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state: dict[str, Tensor] = {}
    for path, adapter in acting(model):
        for k, core in enumerate(sites.train_at(train, path).cores):
            state[names[id(adapter.linear.cores.read(k))]] = core.float().contiguous()
        if biases:
            state[names[id(adapter.linear.bias)]] = biases.get(path, torch.zeros(adapter.linear.out_features)).float()
    _save(model, state, directory)


def _save(model: nn.Module, state: dict[str, Tensor], directory: Path) -> None:
    """Give the adapters of a model without weights these tensors, and save them."""
    check_tensors({name: tensor.shape for name, tensor in adapter_state_dict(model).items()}, state, "the result")
    model.load_state_dict(state, strict=False, assign=True)
    remove_model_card(directory)
    save(model, directory, model_card=False)  # its counts would be those of a base of another vocabulary


def zero_train(size: tuple[int, int], trains: Mapping[str, t3.TensorTrain]) -> t3.TensorTrain:
    """A train of rank 1 that is zero but for its last core, so that it can learn; shaped as one of these, if it can."""
    out_features, in_features = size
    d = max((len(train.cores) for train in trains.values()), default=2)
    alike = (train.raw_shape for train in trains.values() if train.shape == size)
    raw_shape = next(alike, None) or t3.tt_shape(in_features, out_features, d)
    shapes = [(1, m, n, 1) for m, n in zip(*raw_shape, strict=True)]
    cores = [torch.full(shape, (shape[1] * shape[2]) ** -0.5, dtype=torch.float64) for shape in shapes]
    return t3.TensorTrain([*cores[:-1], torch.zeros_like(cores[-1])])


def _placement(sublayers: list[Sublayer], paths: Iterable[str], like: Path) -> dict[str, Any]:
    """The fields that say where the smallest tt_lora is that has a place at each of these paths."""
    known = {path: (sublayer, name) for sublayer in sublayers for name, path in sublayer.linears.items()}
    found = []
    for path in paths:
        sublayer, name = known.get(path, (None, ""))
        if sublayer is None or sublayer.layer is None:
            raise CheckpointError(
                f"A delta belongs to a linear of a sublayer of the base; got {path!r}, and the base of {like} "
                "has none there: write it like a folder of its own base."
            )
        found.append((sublayer, name))
    if not found:
        raise CheckpointError("An adapter has one delta at least; got none: choose adapters that have some.")
    stacks = {sublayer.stack for sublayer, _ in found}
    layers = {sublayer.layer for sublayer, _ in found}
    every_layer = {sublayer.layer for sublayer in sublayers if sublayer.stack in stacks} - {None}
    return {
        "stacks": tuple(sorted(stacks, reverse=True)),
        "layers": None if layers == every_layer else tuple(sorted(layers)),
        "sublayers": tuple(sorted({sublayer.kind for sublayer, _ in found})),
        "target_modules": tuple(sorted({name for _, name in found})),
    }
