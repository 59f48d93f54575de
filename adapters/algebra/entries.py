"""What vectors of adapters are made of: trains and biases in float64 on the CPU, finite and of sizes that fit."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

import t3nsor as t3
from adapters.algebra.sites import Sites


def checked_trains(trains: Mapping[str, t3.TensorTrain]) -> dict[str, t3.TensorTrain]:
    """Plain trains by path, in the order of the paths."""
    return {path: t3.TensorTrain(_in_float64(path, core) for core in trains[path].cores) for path in sorted(trains)}


def checked_biases(
    biases: Mapping[str, Tensor], trains: Mapping[str, t3.TensorTrain], sites: Sites | None
) -> Mapping[str, Tensor]:
    """Biases (out,) of linears that have a train, or sites in the one train."""
    for path, bias in biases.items():
        size = _out_features(path, trains, sites)
        if bias.shape != (size,):
            raise ValueError(
                f"A bias has the out size of the delta beside it; got one of shape {tuple(bias.shape)} at "
                f"{path}, where that is {size}: give a delta of this size, zero if there is none."
            )
    return MappingProxyType({path: _in_float64(path, biases[path]) for path in sorted(biases)})


def _out_features(path: str, trains: Mapping[str, t3.TensorTrain], sites: Sites | None) -> int | None:
    if sites is None:
        return trains[path].shape[0] if path in trains else None
    (train,) = trains.values()
    return train.shape[0] // math.prod(sites.counts) if path in sites.indices else None


def _in_float64(path: str, tensor: Tensor) -> Tensor:
    if not tensor.isfinite().all():
        raise ValueError(
            f"A delta holds finite numbers; at {path} one is infinite or NaN: training diverged, take an earlier "
            "checkpoint."
        )
    return tensor.detach().to("cpu", torch.float64)
