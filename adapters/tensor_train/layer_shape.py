"""The shape of a TT layer: ((m_1..m_d), (n_1..n_d)), the factors of its out and in features, one pair per core.

                                                                768 -> 3072, d = 3, rank 8
    raw_shape                    the given factors
    modes other than "out_in"    factors in the cores that       (1, 3072), (768, 1)           modes in, out
                                 carry a side, else 1
    shape_mode "cheapest"        ``t3nsor.cheapest_shape``       (96, 32, 1), (2, 1, 384)      6,656 parameters
    any other shape_mode         ``t3nsor.tt_shape``             (12, 16, 16), (8, 8, 12)      "ascending", 10,496

All decisions about shapes are made here, including those about "cheapest".
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import t3nsor as t3
from adapters.tensor_train.modes import RawShape, all_two_sided, shape_of_modes
from t3nsor.cheap_shapes import DELTA_SHAPE_MODE
from t3nsor.cheap_shapes import layer_shape as shape_by_mode

ShapeMode = Literal["ascending", "descending", "mixed", "reversed_out", "in_only", "out_only", "cheapest"]
TWO_SIDED_ONLY = ("in_only", "out_only", "cheapest")
"""Shape modes that decide which cores carry which side, and so need modes that leave this open."""


def resolve_shape_mode(config: Any) -> ShapeMode | None:
    """Return the shape mode of a configuration: its own or the default; None with an explicit ``raw_shape``.

    "cheapest" is the default of kinds that prefer it, for the layers on which it was measured (docs/performance.md):
    trains of one rank, with unshared two-sided cores and no activation. The default is "ascending" otherwise.
    """
    if config.raw_shape is not None:
        if config.shape_mode is not None:
            given = f"{config.shape_mode!r} together with a raw_shape"
            config.refuse("shape_mode", "chooses the factors that raw_shape would give", given, "drop one of the two")
        return None
    two_sided = all_two_sided(config.modes)
    if config.shape_mode is not None:
        if config.shape_mode in TWO_SIDED_ONLY and not two_sided:
            rule = 'must only order the factors with modes other than "out_in", which assign them to cores'
            fix = 'use "ascending", "descending", "mixed" or "reversed_out", or give a raw_shape'
            config.refuse("shape_mode", rule, repr(config.shape_mode), fix)
        return config.shape_mode
    own_cores = config.format == "tensor_train" and not (config.shared_cores or config.disabled_cores)
    measured = two_sided and own_cores and isinstance(config.rank, int) and config.core_activation is None
    return DELTA_SHAPE_MODE if config.prefers_cheapest_shape and measured else "ascending"


def layer_shape(
    config: Any, in_features: int, out_features: int, rank: int | Sequence[int], mirrored: bool = False
) -> RawShape:
    """Return the raw shape of a layer.

    Args:
        config: tensor-train fields with resolved ``d`` and ``shape_mode``.
        rank: the rank that a "cheapest" shape is chosen for.
        mirrored: whether an explicit ``raw_shape`` is that of the transposed layer (the up projection of a bottleneck);
            by default it is mirrored only for a layer of swapped sizes.

    Raises:
        ConfigurationError: ``raw_shape`` does not fit the sizes.
    """
    if config.raw_shape is not None:
        return _given_shape(config, in_features, out_features, mirrored)
    if not all_two_sided(config.modes):
        return shape_of_modes(config.modes, in_features, out_features, config.shape_mode)
    return shape_by_mode(in_features, out_features, config.d, rank, config.shape_mode)


def _given_shape(config: Any, in_features: int, out_features: int, mirrored: bool) -> RawShape:
    rows, columns = config.raw_shape
    is_swapped = (math.prod(rows), math.prod(columns)) == (in_features, out_features) != (out_features, in_features)
    if (mirrored or is_swapped) and all_two_sided(config.modes):
        rows, columns = columns, rows
    check_factors(config, rows, out_features, "out")
    check_factors(config, columns, in_features, "in")
    return rows, columns


def check_factors(config: Any, factors: Sequence[int], size: int, side: str) -> None:
    """Raise ConfigurationError unless the product of the factors of one side is that side's size."""
    if math.prod(factors) != size:
        given = f"{list(factors)} with product {math.prod(factors)}"
        fix = f"use for example {list(t3.factorize(size, len(factors)))}"
        config.refuse("raw_shape", f"must have factors whose product is the {side} size {size}", given, fix)


def shareable_shape(shared_cores: Sequence[int], d: int, out_features: int, in_features: int) -> list[list[int]] | None:
    """Return a raw shape with m_k = n_k in the shared cores, so that a layer of swapped sizes can share them.

    The other cores get the remaining factors. None if no core is shared, or all are.
    """
    own = d - len(shared_cores)
    if not own or not shared_cores:
        return None
    common = t3.factorize(math.gcd(out_features, in_features), len(shared_cores) + 1)[:-1]
    sides = [list(t3.factorize(size // math.prod(common), own)) for size in (out_features, in_features)]
    for k, factor in zip(shared_cores, common, strict=True):
        for side in sides:
            side.insert(k, factor)
    return sides
