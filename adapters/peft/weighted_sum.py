"""A weighted sum of the adapters in a model as a further adapter, for ``add_weighted_adapter``.

    x_i {path of a linear: T_i}  ->  sum_i w_i x_i, exact or rounded (``adapters.algebra``)  ->  cores of a new adapter

The new adapter is a tensor train at each linear, with s = 1, and shares no cores.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.algebra import ApproximationReport, Deltas
from adapters.algebra.combination import Shape, weighted_sum
from adapters.algebra.description import shape_and_rank
from adapters.algebra.live import delta_of
from adapters.algebra.low_rank import with_useful_ranks
from adapters.compiled import original_path
from adapters.peft.adapter_names import check_names
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.placement import peft_targets
from adapters.validation import ConfigurationError


def sum_of(
    tuner: Any,
    names: Sequence[str],
    weights: Sequence[float],
    new_name: str,
    shape: Shape | None,
    max_rank: int | Sequence[int] | None,
    rel_tol: float | None,
) -> tuple[Deltas, ApproximationReport]:
    """Return the sum, of useful ranks, and the error of rounding; see ``TensorTrainModel.add_weighted_adapter``."""
    names = list(names)
    check_names(names, tuner.peft_config)
    if new_name in tuner.peft_config:
        raise ConfigurationError(
            f"The sum of adapters is a new adapter; got adapter_name={new_name!r}, which exists: choose another name."
        )
    for name in names:
        config = tuner.peft_config[name]
        others = {key: getattr(config, key) for key in ("modules_to_save", "target_parameters", "bias")}
        if others := {key: value for key, value in others.items() if value not in (None, "none")}:
            raise ConfigurationError(
                f"Deltas of linears are added, and nothing else that trains; got {others} of {name!r}: train the "
                "adapters without it."
            )
    total, report = weighted_sum([_deltas(tuner.model, name) for name in names], weights, shape, max_rank, rel_tol)
    return Deltas({path: with_useful_ranks(train) for path, train in total.items()}, total.biases), report


def config_of_sum(like: TensorTrainConfig, total: Deltas, model: nn.Module) -> TensorTrainConfig:
    """Return the configuration of an adapter with these deltas, for the base of ``like`` in ``model``."""
    return TensorTrainConfig(
        **shape_and_rank(total),
        **{key: getattr(like, key) for key in ("task_type", "base_model_name_or_path", "revision", "dropout")},
        target_modules=peft_targets(model, set(total)),
        scaling=1.0,
        delta_bias="dense" if total.biases else "none",
    )


@torch.no_grad()
def fill(model: nn.Module, name: str, total: Deltas) -> None:
    """Copy the deltas into the modules of the adapter ``name``, in float32."""
    for path, layer in _layers(model, name).items():
        linear = layer.tt_lora_delta[name].linear
        for k, core in enumerate(total[path].cores):
            linear.cores.read(k).copy_(core)
        if linear.bias is not None:
            linear.bias.copy_(total.biases.get(path, torch.zeros(linear.out_features)))


def _deltas(model: nn.Module, name: str) -> Deltas:
    """Return the deltas of one adapter, active or not."""
    trains: dict[str, t3.TensorTrain] = {}
    biases: dict[str, Tensor] = {}
    for path, layer in _layers(model, name).items():
        trains[path], bias = delta_of(path, layer.tt_lora_delta[name])
        if bias is not None:
            biases[path] = bias
    return Deltas(trains, biases)


def _layers(model: nn.Module, name: str) -> dict[str, TensorTrainPeftLinear]:
    """Return the layers with a delta of this adapter, by the path of the linear."""
    return {
        original_path(path): layer
        for path, layer in model.named_modules()
        if isinstance(layer, TensorTrainPeftLinear) and name in layer.tt_lora_delta
    }
