"""The network of each linear: its factors, its ranks, and the checks of both.

first_shape [64, 32]     c_fc   W (3072, 768)    A (64, 32)   B (48, 24)
                         c_proj W (768, 3072)    A (32, 64)   B (24, 48)    the output matrix: transposed
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

import t3nsor as t3
from adapters.configuration import as_lists
from adapters.factorized.configuration import SHARED_BASIS, FactorizedConfig
from adapters.factorized.layers import NetworkSpec, rank_within, sizes
from adapters.tensor_train.layer_shape import check_factors
from adapters.tensor_train.modes import RawShape
from adapters.tensor_train.patterns import pattern_value
from adapters.validation import nearest_name


def network_spec(config: FactorizedConfig, path: str, linears: Sequence[nn.Module], transposed: bool) -> NetworkSpec:
    """The network of one linear, or of the stacked rows of several.

    Args:
        path: of the first one.
        transposed: whether ``first_shape``, if it is one for all, is that of the transposed weight.

    Raises:
        ConfigurationError: the shape or the rank does not fit.
    """
    in_features, out_features = sizes(linears[0])
    format = config.format if config.format in t3.FORMATS else "tensor_train"
    rows = sum(sizes(linear)[1] for linear in linears)
    if config.format == SHARED_BASIS:
        raw_shape = ((1, len(linears), out_features), (in_features, 1, 1))
    else:
        raw_shape = _stacked(_shape_of_one(config, path, linears[0], transposed), rows, out_features)
    rank = _value_at(config, "rank_pattern", path)
    if config.budget is not None:
        rank = _rank_of_budget(config, path, format, raw_shape, rows * in_features)
    elif config.format == "kronecker":
        _check_factors_are_independent(config, path, raw_shape, rank)
    elif config.format == "tensor_ring" and isinstance(rank, int):
        _check_ring_is_small(config, path, raw_shape, rank, rows * in_features)
    try:
        ranks = t3.FORMATS[format].resolve_ranks(raw_shape, rank)
    except ValueError as error:
        config.refuse("rank", f"must fit the weight ({out_features}, {in_features}) of {path}", rank, str(error))
    kind = type(linears[0]).__name__
    return NetworkSpec(kind, raw_shape, tuple(ranks), format, config.frozen_cores, config.scalars)


def _shape_of_one(config: FactorizedConfig, path: str, linear: nn.Module, transposed: bool) -> RawShape:
    """The factors of one weight, not stacked; low rank where a search begins."""
    in_features, out_features = sizes(linear)
    if config.format == "kronecker":
        return _kronecker_shape(config, path, out_features, in_features, transposed)
    if config.format in t3.FORMATS:
        return _train_shape(config, out_features, in_features)
    return (1, out_features), (in_features, 1)


def _rank_of_budget(config: FactorizedConfig, path: str, format: str, raw_shape: RawShape, dense: int) -> int:
    """The rank by the share of ``dense`` parameters that the budget allows."""
    rank = rank_within(format, raw_shape, int(config.budget * dense), config.scalars)
    if not rank:
        least = NetworkSpec("Linear", raw_shape, tuple(t3.FORMATS[format].resolve_ranks(raw_shape, 1)), format)
        rule = f"allows rank 1 at {path}, which is a share of {least.parameters / dense:.4f}"
        config.refuse("budget", rule, config.budget, "raise it, or choose another shape")
    return rank


def _stacked(raw_shape: RawShape, rows: int, out_features: int) -> RawShape:
    """The shape of ``rows`` stacked rows, given that of (out, in): more rows in the first core that has any."""
    factors, columns = raw_shape
    k = next((k for k, factor in enumerate(factors) if factor > 1), 0)
    return (*factors[:k], factors[k] * rows // out_features, *factors[k + 1 :]), columns


def _kronecker_shape(
    config: FactorizedConfig, path: str, out_features: int, in_features: int, transposed: bool
) -> RawShape:
    """((m1, m2), (n1, n2)) of the two factors."""
    shape = config.first_shape
    if isinstance(shape, dict):
        shape = pattern_value(config, "first_shape", path)
    elif transposed:
        shape = shape[::-1]
    if out_features % shape[0] or in_features % shape[1]:
        sizes = (out_features, in_features)
        near = [
            min(_divisors(size), key=lambda k, a=a: abs(math.log(k / a))) for size, a in zip(sizes, shape, strict=True)
        ]
        rule = f"must divide the rows and columns of W {sizes} at {path}"
        config.refuse("first_shape", rule, list(shape), f"use for example {near}")
    return (shape[0], out_features // shape[0]), (shape[1], in_features // shape[1])


def check_patterns(config: FactorizedConfig, linears: Collection[str]) -> None:
    """Refuse a key of a dictionary that no path matches, and a first_shape without a value for a path."""
    for key in config.patterns():
        matched = {name for name in getattr(config, key) for path in linears if _matches(config, key, name, path)}
        for name in getattr(config, key):
            if name not in matched:
                fix = nearest_name(name, {path.rpartition(".")[2] for path in linears})
                config.refuse(key, "must have keys that match its linears", repr(name), fix)
    if isinstance(config.first_shape, dict):
        for path in linears:
            if pattern_value(config, "first_shape", path) is None:
                config.refuse("first_shape", "must have a shape for each linear", f"none for {path}", "add it")


def check_one_value(config: FactorizedConfig, paths: Sequence[str]) -> None:
    """Refuse dictionaries that give linears of one network different values."""
    for key in config.patterns():
        values = [as_lists(_value_at(config, key, path)) for path in paths]
        for path, value in zip(paths, values, strict=True):
            if value != values[0]:
                given = f"{values[0]} at {paths[0]} and {value} at {path}"
                config.refuse(key, "has one value for linears that share a network", given, "give them the same")


def _value_at(config: FactorizedConfig, key: str, path: str) -> Any:
    """What a dictionary gives a linear; without one, of ranks the general one."""
    value = pattern_value(config, key, path)
    return config.general_rank if value is None and key == "rank_pattern" else value


def _matches(config: FactorizedConfig, key: str, name: str, path: str) -> bool:
    """Whether one key of a dictionary matches a path."""
    return pattern_value(_Single(config, key, name), key, path) is not None


class _Single:
    """One entry of a dictionary of a configuration, as ``pattern_value`` reads it."""

    def __init__(self, config: FactorizedConfig, key: str, name: str) -> None:
        setattr(self, key, {name: getattr(config, key)[name]})


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


def _check_factors_are_independent(config: FactorizedConfig, path: str, raw_shape: RawShape, factors: int) -> None:
    (m1, m2), (n1, n2) = raw_shape
    most = min(m1 * n1, m2 * n2)
    if factors > most:
        rule = f"is at most {most} at {path}, where the factors are ({m1}, {n1}) and ({m2}, {n2})"
        config.refuse("factors", rule, factors, "with more, the products are not independent: lower it")


def _check_ring_is_small(config: FactorizedConfig, path: str, raw_shape: RawShape, rank: int, dense: int) -> None:
    """Refuse one rank for all bonds by the ``dense`` parameters of the weight: unlike in a train, it is not cut."""
    most = max(rank_within("tensor_ring", raw_shape, dense), 1)
    if rank > most:
        rule = f"is at most {most} at {path}, as a larger ring has more parameters than the weight"
        config.refuse("rank", rule, rank, "lower it, or list the ranks of all bonds")


def _train_shape(config: FactorizedConfig, out_features: int, in_features: int) -> RawShape:
    if config.raw_shape is None:
        shape_mode = config.shape_mode or "ascending"
        if shape_mode == "cheapest":
            return t3.cheapest_shape(in_features, out_features, config.d, config.general_rank)
        return t3.tt_shape(in_features, out_features, config.d, shape_mode)
    rows, columns = config.raw_shape
    if (math.prod(rows), math.prod(columns)) == (in_features, out_features):
        rows, columns = (rows, columns) if in_features == out_features else (columns, rows)
    check_factors(config, rows, out_features, "out")
    check_factors(config, columns, in_features, "in")
    return rows, columns
