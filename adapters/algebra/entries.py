"""The entries of a vector of deltas: trains and biases in float64 on the CPU, checked for finite values and sizes."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

import t3nsor as t3
from adapters.algebra.sites import Sites


def checked_trains(trains: Mapping[str, t3.TensorTrain]) -> dict[str, t3.TensorTrain]:
    """Return trains in float64, sorted by path."""
    return {path: t3.TensorTrain(_in_float64(path, core) for core in trains[path].cores) for path in sorted(trains)}


def checked_biases(
    biases: Mapping[str, Tensor], trains: Mapping[str, t3.TensorTrain], sites: Sites | None
) -> Mapping[str, Tensor]:
    """Return biases (out,) in float64, sorted by path; each belongs to a linear with a delta."""
    for path, bias in biases.items():
        size = _out_features(path, trains, sites)
        if bias.shape != (size,):
            raise ValueError(
                f"A bias must have the out size of the delta at its linear; got shape {tuple(bias.shape)} at {path}, "
                f"whose out size is {size}: give a delta of this size, zero if there is none."
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
            f"A delta must have finite values; got an infinity or NaN at {path}: use an earlier checkpoint."
        )
    return tensor.detach().to("cpu", torch.float64)
