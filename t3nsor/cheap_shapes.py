"""Shapes of TT matrices that are cheap to train: few operations per token, at a matrix rank and size one can name.

At a bond of rank R the matrix W (M, N) is two halves, left (M1, N1, R) and right (R, M2, N2). Beside a frozen weight
the product and both gradients cost, per token, about

    cost = R M2 (N + N1 M)     multiply-adds a direction, with the left half written out where M2 > 1

while the rank of W as a matrix can be up to R N1 M2. So M2 and N1 are kept small: the out factors stand in the first
cores and the in factors in the last ones. M2 = N1 = 1 is LoRA of rank R; for a rank of K = R N1 with M2 = 1 the cost is
R N + K M, below the K (N + M) of LoRA. What the cores on each side hold is then a matter of size alone, and their
factors are chosen for the fewest numbers.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from .shapes import RawShape, factorize, positive_int, train_ranks

USUAL_MATRIX_RANK = 16
"""The rank that the matrix can reach at least, where nothing is said."""


class ShapeCost(NamedTuple):
    """A shape with what it costs: multiply-adds per token and direction, numbers, and the rank that W can reach."""

    raw_shape: RawShape
    cost: int
    parameters: int
    matrix_rank: int


def cheapest_shape(
    in_features: int,
    out_features: int,
    d: int = 3,
    rank: int | Sequence[int] = 8,
    max_parameters: int | None = None,
    max_cost: int | None = None,
    matrix_rank: int = USUAL_MATRIX_RANK,
) -> RawShape:
    """The `raw_shape` with the least cost for a number of parameters, or with the fewest parameters for a cost.

    Args:
        rank: of every bond; of a list the largest counts.
        max_parameters: the budget; None for what the shape of mode "ascending" takes with this d and rank, or
            for the smallest there is where that takes less.
        max_cost: multiply-adds per token and direction; where it is given, parameters are minimised instead.
        matrix_rank: the rank that W must be able to reach, as far as its sizes and the budget allow.

    Raises:
        TypeError, ValueError: an argument is no positive integer, or no shape is within the budget.
    """
    N, M = positive_int(in_features, "in_features"), positive_int(out_features, "out_features")
    d = positive_int(d, "d")
    r = max(rank) if isinstance(rank, Sequence) and not isinstance(rank, str) and rank else rank
    r = positive_int(r, "The rank")
    for name, given in (("max_parameters", max_parameters), ("max_cost", max_cost), ("matrix_rank", matrix_rank)):
        if given is not None:
            positive_int(given, name)
    shapes = [ShapeCost(((M,), (N,)), M * N, M * N, min(M, N))] if d == 1 else list(shape_costs(N, M, d, r))
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
            f"A shape within the budget must exist, but max_{limited} = {limit} was given and the smallest is "
            f"{smallest}; raise it, or lower the rank."
        )
    other = "parameters" if least == "cost" else "cost"
    return min(
        within, key=lambda s: (max(matrix_rank - s.matrix_rank, 0), getattr(s, least), getattr(s, other))
    ).raw_shape


@lru_cache(maxsize=1024)
def shape_costs(N: int, M: int, d: int, r: int) -> tuple[ShapeCost, ...]:
    """For each bond, N1 and M2 the shape with the fewest parameters."""
    return tuple(
        ShapeCost(
            raw_shape=(left_m + right_m, left_n + right_n),
            cost=r * M2 * (N + N1 * M),
            parameters=left_size + right_size,
            matrix_rank=min(r * N1 * M2, M, N),
        )
        for bond in range(1, d)
        for N1 in _divisors(N)
        for M2 in _divisors(M)
        for left_size, left_m, left_n in [_smallest_chain(M // M2, N1, bond, r)]
        for right_size, right_m, right_n in [_smallest_chain(M2, N // N1, d - bond, r, reverse=True)]
    )


@lru_cache(maxsize=65536)
def _smallest_chain(
    M: int, N: int, d: int, r: int, reverse: bool = False
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """(numbers, out factors, in factors) of the smallest d cores for M x N whose outer end has rank 1, others r.

    The outer end is the first core, or reversed the last one; it alone has r m n numbers, the others r m n r.
    """
    if d == 1:
        return r * M * N, (M,), (N,)
    outer = min(_divisors(M * N), key=lambda p: r * p + r * r * sum(factorize(M * N // p, d - 1)))
    sizes = (outer, *factorize(M * N // outer, d - 1, "descending"))
    rows = []
    for size in sizes:
        rows.append(math.gcd(size, M // math.prod(rows)))
    columns = [size // m for size, m in zip(sizes, rows, strict=True)]
    numbers = r * sizes[0] + r * r * sum(sizes[1:])
    step = -1 if reverse else 1
    return numbers, tuple(rows[::step]), tuple(columns[::step])


@lru_cache(maxsize=4096)
def _divisors(n: int) -> tuple[int, ...]:
    small = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    return tuple(dict.fromkeys([*small, *(n // k for k in reversed(small))]))
