"""Shapes of TT matrices that are cheap to train: few operations per token at a given matrix rank and size.

At a bond of rank R the matrix W (M, N) is two halves, left (M1, N1, R) and right (R, M2, N2). Beside a frozen weight
the product and both gradients cost, per token, about

    cost = R M2 (N + N1 M)     multiply-adds per direction, with the left half written out if M2 > 1

and W can have a matrix rank of up to R N1 M2 (if N1 <= M1 and M2 <= N2). So M2 and N1 are kept small: the out factors
are in the first cores and the in factors in the last ones. M2 = N1 = 1 is LoRA of rank R; for a rank of K = R N1 with
M2 = 1 the cost is R N + K M, below the K (N + M) of LoRA. The factors within each side only affect the size and are
chosen for few parameters (not always the fewest, because ranks are clipped).

768 -> 3072 with d = 3 and rank 8: ((96, 32, 1), (2, 1, 384)), 6,656 parameters, 55,296 multiply-adds, matrix rank 16.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from .shapes import SHAPE_MODES, RawShape, check_rank, factorize, positive_int, train_ranks, tt_shape

MATRIX_RANK = 16
"""The default matrix rank that W must be able to reach."""

LAYER_SHAPE_MODES = (*SHAPE_MODES, "cheapest")
"""The values of a layer's `shape_mode`."""

DELTA_SHAPE_MODE = "cheapest"
"""The default `shape_mode` of a train beside a frozen weight, where it was measured (docs/performance.md)."""


class ShapeCost(NamedTuple):
    """A shape, its multiply-adds per token and direction, its parameters, and the largest matrix rank of W."""

    raw_shape: RawShape
    cost: int
    parameters: int
    matrix_rank: int


def layer_shape(in_features: int, out_features: int, d: int, rank: int | Sequence[int], shape_mode: str) -> RawShape:
    """Return the `raw_shape` of a layer by its `shape_mode`: `cheapest_shape` or one of `tt_shape`."""
    if shape_mode == "cheapest":
        return cheapest_shape(in_features, out_features, d, rank)
    return tt_shape(in_features, out_features, d, shape_mode)


def cheapest_shape(
    in_features: int,
    out_features: int,
    d: int = 3,
    rank: int | Sequence[int] = 8,
    max_parameters: int | None = None,
    max_cost: int | None = None,
    matrix_rank: int = MATRIX_RANK,
) -> RawShape:
    """Return the `raw_shape` with the lowest cost for a parameter budget, or with the fewest parameters for a cost.

    Args:
        in_features, out_features: N and M.
        d: the number of cores.
        rank: of every bond, clipped as in a train; only the largest of a list counts.
        max_parameters: the budget; None for the parameters of the "ascending" shape with this d and rank, or for the
            smallest possible number if that is larger.
        max_cost: multiply-adds per token and direction; if given, the parameters are minimised instead.
        matrix_rank: the rank that W must be able to reach, as far as its sizes and the budget allow.

    Raises:
        TypeError, ValueError: an argument is not a positive integer, or no shape is within the budget.
    """
    N, M = positive_int(in_features, "in_features"), positive_int(out_features, "out_features")
    d = positive_int(d, "d")
    rank = check_rank(rank)
    r = rank if isinstance(rank, int) else max(rank, default=1)
    for name, given in (("max_parameters", max_parameters), ("max_cost", max_cost), ("matrix_rank", matrix_rank)):
        if given is not None:
            positive_int(given, name)
    shapes = [ShapeCost(((M,), (N,)), M * N, M * N, min(M, N))] if d == 1 else list(shape_costs(N, M, d, r))
    if max_cost is not None and max_parameters is not None:
        raise ValueError(
            "Only one of max_parameters and max_cost can be given; got "
            f"max_parameters = {max_parameters} and max_cost = {max_cost}: leave one out."
        )
    if max_cost is not None:
        return _best(shapes, "cost", max_cost, "parameters", matrix_rank)
    if max_parameters is None:
        ascending = factorize(M, d), factorize(N, d)
        ranks = train_ranks(ascending, r)
        sizes = zip(ranks[:-1], *ascending, ranks[1:], strict=True)
        smallest = min(shape.parameters for shape in shapes)
        max_parameters = max(sum(math.prod(size) for size in sizes), smallest)
    return _best(shapes, "parameters", max_parameters, "cost", matrix_rank)


def _best(shapes: list[ShapeCost], limited: str, limit: int, least: str, matrix_rank: int) -> RawShape:
    within = [shape for shape in shapes if getattr(shape, limited) <= limit]
    if not within:
        smallest = min(getattr(shape, limited) for shape in shapes)
        raise ValueError(
            f"max_{limited} must be at least {smallest}, the smallest possible for these sizes; got {limit}: "
            "raise it, or lower the rank."
        )
    other = "parameters" if least == "cost" else "cost"
    return min(
        within, key=lambda s: (max(matrix_rank - s.matrix_rank, 0), getattr(s, least), getattr(s, other))
    ).raw_shape


@lru_cache(maxsize=1024)
def shape_costs(N: int, M: int, d: int, r: int) -> tuple[ShapeCost, ...]:
    """Return a shape of few parameters for each bond, N1 and M2; ranks are clipped as in a train."""
    costs = []
    for bond in range(1, d):
        for N1 in _divisors(N):
            for M2 in _divisors(M):
                left_n, left_m = _small_chain(N1, M // M2, bond, r)
                right_m, right_n = (side[::-1] for side in _small_chain(M2, N // N1, d - bond, r))
                raw_shape = (left_m + right_m, left_n + right_n)
                ranks = train_ranks(raw_shape, r)
                sizes = zip(ranks[:-1], *raw_shape, ranks[1:], strict=True)
                costs.append(
                    ShapeCost(
                        raw_shape=raw_shape,
                        cost=ranks[bond] * M2 * (N + N1 * M),
                        parameters=sum(math.prod(size) for size in sizes),
                        matrix_rank=_reach(raw_shape, ranks),
                    )
                )
    return tuple(costs)


def _reach(raw_shape: RawShape, ranks: tuple[int, ...]) -> int:
    """Return the largest matrix rank: cut at any bonds, it is at most their ranks times those of the pieces."""
    rows, columns = raw_shape
    d = len(rows)

    def piece(first: int, last: int) -> int:
        return min(math.prod(rows[first:last]), math.prod(columns[first:last]))

    best = [1]  # for the cores before each bond
    for last in range(1, d + 1):
        best.append(min(best[first] * ranks[first] * piece(first, last) for first in range(last)))
    return best[d]


@lru_cache(maxsize=65536)
def _small_chain(few: int, many: int, d: int, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the factors of the two sides of d cores with few parameters, the outer core first, with most of `few`.

    The outer end has rank 1, all other bonds r: the outer core has r m n parameters, the others r m n r.
    """
    if d == 1:
        return (few,), (many,)
    whole = few * many
    outer = min(_divisors(whole), key=lambda p: r * p + r * r * sum(factorize(whole // p, d - 1)))
    sizes = (outer, *factorize(whole // outer, d - 1, "descending"))
    scarce: list[int] = []
    for size in sizes:
        scarce.append(math.gcd(size, few // math.prod(scarce)))
    return tuple(scarce), tuple(size // factor for size, factor in zip(sizes, scarce, strict=True))


@lru_cache(maxsize=4096)
def _divisors(n: int) -> tuple[int, ...]:
    small = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    return tuple(dict.fromkeys([*small, *(n // k for k in reversed(small))]))
