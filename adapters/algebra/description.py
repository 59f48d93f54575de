"""Describe the shapes and ranks of many trains in a configuration: one value for most, a pattern for the others.

    rank 4, rank_pattern {"wo": [2, 3]}      most linears have rank 4, those whose path ends with wo ranks 2 and 3

See ``adapters.tensor_train.patterns`` for the meaning of a pattern.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

import t3nsor as t3
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.tensor_train.patterns import Value, common_value
from t3nsor.shapes import RawShape


def shape_and_rank(trains: Mapping[str, t3.TensorTrain]) -> dict[str, Any]:
    """Return the fields ``raw_shape`` and ``rank`` of most of these trains, and the patterns of the others."""
    shapes = {path: train.raw_shape for path, train in trains.items()}
    ranks = {path: train.ranks[1:-1] for path, train in trains.items()}
    raw_shape, shape_pattern = common_value(
        shapes, _most_common(shapes.values()), lambda candidate, path: _oriented(candidate, shapes[path])
    )
    single_ranks = sorted({max(rank, default=1) for rank in ranks.values()}, reverse=True)
    lists = [rank for rank in _most_common(ranks.values()) if len(rank) == len(raw_shape[0]) - 1]
    rank, rank_pattern = common_value(
        ranks, [*single_ranks, *lists], lambda candidate, path: _ranks(shapes[path], candidate)
    )
    fields: dict[str, Any] = {"raw_shape": raw_shape, "rank": rank}
    patterns = {"rank_pattern": rank_pattern, "shape_pattern": shape_pattern}
    return fields | {name: pattern for name, pattern in patterns.items() if pattern}


def chosen_shape(config: TensorTrainLoRAConfig, out_features: int, in_features: int) -> RawShape:
    """Return the raw shape that a configuration gives a linear of this size.

    Raises:
        ConfigurationError: it does not fit the size.
    """
    with torch.device("meta"):
        return config.build(in_features, out_features).linear.raw_shape


def _most_common(values: Iterable[Value]) -> list[Value]:
    """Return each value once, the most frequent first."""
    return [value for value, _ in Counter(values).most_common()]


def _oriented(candidate: RawShape, raw_shape: RawShape) -> RawShape:
    """Return the raw shape that a linear gets from the field: swapped if its size (out, in) is."""
    sizes = [tuple(map(math.prod, shape)) for shape in (candidate, raw_shape)]
    return candidate[::-1] if sizes[0] == sizes[1][::-1] != sizes[1] else candidate


def _ranks(raw_shape: RawShape, rank: int | tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the interior ranks that a train of this shape gets from the field; None if it does not fit."""
    try:
        return t3.TensorTrain.resolve_ranks(raw_shape, rank)[1:-1]
    except ValueError:
        return None
