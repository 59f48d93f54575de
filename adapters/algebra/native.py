"""Read and write deltas in folders of ``adapters.save``, through a model without weights.

architecture   ->  the base on the meta device, without memory  ->  attach the adapters of the folder
read           give the adapters the tensors of the folder; the deltas are those of this model (``live``)
write          attach one tt_lora beside the linears, give its modules the cores, ``adapters.save``
"""

from collections.abc import Collection, Iterable, Mapping
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
from adapters.base.linear_layers import features
from adapters.base.sublayers import Sublayer, find_sublayers
from adapters.base.targets import targets_of
from adapters.injection import attach
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.saved.architecture import base_without_weights
from adapters.saved.checkpoint import read_checkpoint, save
from adapters.saved.folder import CheckpointError
from adapters.saved.model_card import remove_model_card
from adapters.saved.state import adapter_state_dict, check_tensors
from adapters.validation import ConfigurationError

PLACEMENT = ("stacks", "layers", "sublayers", "target_modules", "exclude_modules")
"""Fields of tt_lora that choose its linears."""


def read_native(directory: Path, task: str | None) -> Parts:
    """Return the deltas in the folder that are active for this task.

    Raises:
        CheckpointError: the folder cannot be read, has kinds other than tt_lora, or no active adapter.
    """
    checkpoint = read_checkpoint(directory)
    try:
        for _, config in checkpoint.adapters:
            check_kind(config.kind)
        model = base_without_weights(checkpoint.architecture, directory)
        with torch.device("meta"):
            for saved_task, config in checkpoint.adapters:
                attach(model, config, saved_task)
        shapes = {name: tensor.shape for name, tensor in adapter_state_dict(model).items()}
        check_tensors(shapes, checkpoint.tensors, str(directory))
        model.load_state_dict(checkpoint.tensors, strict=False, assign=True)
        set_active_task(model, task)
        return live_deltas(model)
    except ConfigurationError as error:
        raise CheckpointError(
            f"Deltas of linears are read; got another adapter in {directory} ({str(error).rstrip('.')}): save the "
            "tt_lora of this model alone."
        ) from error


def write_native(
    directory: Path, like: Path, trains: Mapping[str, t3.TensorTrain], biases: Mapping[str, Tensor]
) -> None:
    """Save these deltas in float32 as one tt_lora for all tasks, for the base of ``like``.

    Raises:
        CheckpointError: ``like`` cannot be read, or its base has no linears of these paths and sizes.
    """
    checkpoint = read_checkpoint(like)
    model = base_without_weights(checkpoint.architecture, like)
    sublayers = find_sublayers(model)
    targets = _targets(sublayers, trains, like)
    sizes = {path: features(model.get_submodule(path))[::-1] for path in trains}
    for path, train in trains.items():
        if train.shape != sizes[path]:
            raise CheckpointError(
                f"A delta has the size (out, in) of its linear; got {train.shape} for {path}, which has {sizes[path]} "
                f"in the base of {like}: pass a folder of the same base as like."
            )
    useful = {path: with_useful_ranks(train) for path, train in trains.items()}
    dropout = next((c.dropout for _, c in checkpoint.adapters if isinstance(c, TensorTrainLoRAConfig)), 0.0)
    bias = "dense" if biases else "none"
    config = TensorTrainLoRAConfig(
        target_modules=targets, **shape_and_rank(useful), scaling=1.0, delta_bias=bias, dropout=dropout
    )
    with torch.device("meta"):
        attach(model, config)
    state: dict[str, Tensor] = {}
    for path, train in useful.items():
        module = f"{path}.beside.{config.kind}.tasks.{ALL_TASKS}.linear"
        for k, core in enumerate(train.cores):
            state[f"{module}.cores.{k}"] = core.float().contiguous()
        if biases:
            state[f"{module}.bias"] = biases.get(path, torch.zeros(sizes[path][0])).float()
    _save(model, state, directory, checkpoint.base_weights)


def write_one_tensor(
    directory: Path, like: Path, train: t3.TensorTrain, biases: Mapping[str, Tensor], sites: Sites
) -> None:
    """Save one tensor for the whole model in float32, with the site modes and for the base of ``like``.

    Raises:
        CheckpointError: ``like`` cannot be read, has other site modes, or the tensor does not fit its base.
    """
    checkpoint = read_checkpoint(like)
    train = with_useful_ranks(train)
    try:
        config = _with_raw_shape_and_rank(_config_with(sites, checkpoint.adapters), train, sites, bool(biases))
        model = base_without_weights(checkpoint.architecture, like)
        with torch.device("meta"):
            attach(model, config)
    except ConfigurationError as error:
        raise CheckpointError(
            f"One tensor for the whole model needs a folder with its site modes; got like={str(like)!r}, which does "
            f"not fit ({str(error).rstrip('.')}): pass another folder, or write per_linear() instead."
        ) from error
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state: dict[str, Tensor] = {}
    for path, adapter in acting(model):
        for k, core in enumerate(sites.train_at(train, path).cores):
            state[names[id(adapter.linear.cores.read(k))]] = core.float().contiguous()
        if biases:
            state[names[id(adapter.linear.bias)]] = biases.get(path, torch.zeros(adapter.linear.out_features)).float()
    _save(model, state, directory, checkpoint.base_weights)


def _config_with(sites: Sites, adapters: Iterable[tuple[str | None, Any]]) -> TensorTrainLoRAConfig:
    """Return the first tt_lora with these site modes."""
    for _, config in adapters:
        if isinstance(config, TensorTrainLoRAConfig) and config.modes == sites.modes:
            return config
    raise ConfigurationError(f"it has no adapter with the modes {list(sites.modes)}")


def _with_raw_shape_and_rank(
    config: TensorTrainLoRAConfig, train: t3.TensorTrain, sites: Sites, has_bias: bool
) -> TensorTrainLoRAConfig:
    rows, columns = train.raw_shape
    return TensorTrainLoRAConfig(
        **{key: getattr(config, key) for key in (*PLACEMENT, "dropout")},
        modes=sites.modes,
        raw_shape=(tuple(m // count for m, count in zip(rows, sites.counts, strict=True)), columns),
        rank=train.ranks[1:-1],
        delta_bias="dense" if has_bias else "none",
        scaling=1.0,
    )


def _save(model: nn.Module, state: dict[str, Tensor], directory: Path, base_weights: Any) -> None:
    """Give the adapters of a model without weights these tensors, and save them."""
    check_tensors({name: tensor.shape for name, tensor in adapter_state_dict(model).items()}, state, "the result")
    model.load_state_dict(state, strict=False, assign=True)
    remove_model_card(directory)
    # without a card: the vocabulary, and so the base's size, is not known
    save(model, directory, model_card=False, base_weights=base_weights)


def _targets(sublayers: list[Sublayer], paths: Collection[str], like: Path) -> Any:
    """Return the ``target_modules`` that name these paths."""
    if not paths:
        raise CheckpointError("An adapter must have at least one delta; got none: choose adapters that have some.")
    try:
        return targets_of(TensorTrainLoRAConfig(), sublayers, paths)
    except ConfigurationError as error:
        raise CheckpointError(
            f"A delta belongs to a linear of the base; got one that the base of {like} does not have "
            f"({str(error).rstrip('.')}): pass a folder of the same base as like."
        ) from None
