"""Shapes of tensor networks: factorisations of feature dimensions, and the ranks that a shape can use.

raw_shape = ((m_1, ..., m_d), (n_1, ..., n_d))     out_features = m_1 ... m_d,  in_features = n_1 ... n_d
ranks     = (r_0, r_1, ..., r_d)                   core k is (r_{k-1}, m_k, n_k, r_k);  r_0 = r_d = 1 in a train
"""

import math
import operator
from collections.abc import Iterable, Sequence
from functools import lru_cache

RawShape = tuple[tuple[int, ...], tuple[int, ...]]

FACTOR_ORDERS = ("ascending", "descending", "mixed")
SHAPE_MODES = (*FACTOR_ORDERS, "reversed_out", "in_only", "out_only")


def integer(value: int, name: str) -> int:
    """Return `value` as an int; TypeError, naming `name`, for a bool or a non-integer."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name} must be an integer; got {value!r}: pass an int.")


def positive_int(value: int, name: str) -> int:
    """Return `value` as an int >= 1; TypeError or ValueError, naming `name`, for anything else."""
    number = integer(value, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1; got {number}: pass a positive integer.")
    return number


def check_rank(rank: int | Sequence[int]) -> int | tuple[int, ...]:
    """Return a rank as an int >= 1, or a list of ranks as a tuple of them; TypeError or ValueError otherwise."""
    if isinstance(rank, Sequence) and not isinstance(rank, str):
        return tuple(positive_int(r, "Each rank") for r in rank)
    return positive_int(rank, "The rank")


def index_below(index: int, length: int, name: str) -> int:
    """Return `index` counted from the start; TypeError or ValueError, naming `name`, if it is not one of `length`."""
    number = integer(index, name)
    if not -length <= number < length:
        raise ValueError(
            f"{name} must lie between {-length} and {length - 1}; got {number}: choose one of the {length}."
        )
    return number % length


def factorize(n: int, d: int, mode: str = "ascending") -> tuple[int, ...]:
    """Return the most balanced `d` factors of `n`: those with the smallest sum, a TT vector's size per unit of rank.

    A number with fewer than `d` prime factors is padded with ones, so that every `n` has `d` factors: `factorize(7, 3)`
    is (1, 1, 7); `suggest_shape` pads such a number up instead. `mode` orders the factors: "ascending", "descending" or
    "mixed" (alternately the smallest and the largest: 8, 12, 8).
    """
    n, d = positive_int(n, "n"), positive_int(d, "d")
    factors = _balanced_factors(n, d, 1)
    if mode == "ascending":
        return factors
    if mode == "descending":
        return factors[::-1]
    if mode == "mixed":
        return tuple(factors[k // 2] if k % 2 == 0 else factors[-1 - k // 2] for k in range(d))
    raise ValueError(f"mode must be one of {', '.join(FACTOR_ORDERS)}; got {mode!r}: choose one of them.")


@lru_cache(maxsize=4096)
def _balanced_factors(n: int, d: int, smallest: int) -> tuple[int, ...]:
    """Return the ascending factors >= `smallest` with the least sum; empty if there are none."""
    if d == 1:
        return (n,) if n >= smallest else ()
    best: tuple[int, ...] = ()
    factor = smallest
    while factor**d <= n:
        if n % factor == 0:
            rest = _balanced_factors(n // factor, d - 1, factor)
            if rest and (not best or factor + sum(rest) < sum(best)):
                best = (factor, *rest)
        factor += 1
    return best


def suggest_shape(n: int, d: int, mode: str = "ascending") -> tuple[int, ...]:
    """Return `d` factors of the nearest number >= `n` whose largest factor is at most twice its smallest."""
    n = positive_int(n, "n")
    factors = factorize(n, d, mode)
    while max(factors) > 2 * min(factors):
        n += 1
        factors = factorize(n, d, mode)
    return factors


def tt_shape(in_features: int, out_features: int, d: int, mode: str = "ascending") -> RawShape:
    """Return the `raw_shape` of a TT matrix for a linear layer, `(out factors, in factors)`.

    | mode           | out factors m   | in factors n    | 768 -> 3072, d = 3         |
    |----------------|-----------------|-----------------|----------------------------|
    | "ascending"    | ascending       | ascending       | (12, 16, 16), (8, 8, 12)   |
    | "descending"   | descending      | descending      | (16, 16, 12), (12, 8, 8)   |
    | "mixed"        | mixed           | mixed           | (12, 16, 16), (8, 12, 8)   |
    | "reversed_out" | descending      | ascending       | (16, 16, 12), (8, 8, 12)   |
    | "in_only"      | (out, 1, ..., 1)| ascending       | (3072, 1, 1), (8, 8, 12)   |
    | "out_only"     | descending      | (1, ..., 1, in) | (16, 16, 12), (1, 1, 768)  |

    The side that is not factorised is in the core in which the other side is smallest.
    """
    d = positive_int(d, "d")
    in_features, out_features = positive_int(in_features, "in_features"), positive_int(out_features, "out_features")
    ones = (1,) * (d - 1)
    if mode in FACTOR_ORDERS:
        return factorize(out_features, d, mode), factorize(in_features, d, mode)
    if mode == "reversed_out":
        return factorize(out_features, d, "descending"), factorize(in_features, d)
    if mode == "in_only":
        return (out_features, *ones), factorize(in_features, d)
    if mode == "out_only":
        return factorize(out_features, d, "descending"), (*ones, in_features)
    raise ValueError(
        f"shape_mode must be one of {', '.join(SHAPE_MODES)}, or 'cheapest' for a layer; got {mode!r}: "
        "choose one of them."
    )


def check_factors(factors: Iterable[int], name: str) -> tuple[int, ...]:
    """Return `factors` as a non-empty tuple of positive ints; TypeError or ValueError, naming `name`, otherwise."""
    if isinstance(factors, str) or not isinstance(factors, Iterable):
        raise TypeError(f"{name} must be a sequence of integers; got {factors!r}: pass e.g. (8, 8, 12).")
    checked = tuple(positive_int(factor, f"each factor in {name}") for factor in factors)
    if not checked:
        raise ValueError(f"{name} must have at least one factor; got none: pass e.g. (8, 8, 12).")
    return checked


def check_raw_shape(raw_shape: Sequence[Sequence[int]]) -> RawShape:
    """Return `raw_shape` as two tuples of positive ints of one length; TypeError or ValueError for anything else."""
    if isinstance(raw_shape, str) or not isinstance(raw_shape, Sequence) or len(raw_shape) != 2:
        raise ValueError(
            "raw_shape must be a pair (row factors, column factors); "
            f"got {raw_shape!r}: pass e.g. ((12, 16, 16), (8, 8, 12))."
        )
    rows, columns = (check_factors(side, "raw_shape") for side in raw_shape)
    if len(rows) != len(columns):
        raise ValueError(
            "Both sides of raw_shape must have one factor per core; "
            f"got {len(rows)} row factors {rows} and {len(columns)} column factors {columns}: pad with ones."
        )
    return rows, columns


def check_product(factors: tuple[int, ...], size: int, name: str) -> None:
    """Raise ValueError if the factors do not multiply to `size`, which the message calls `name`."""
    if math.prod(factors) != size:
        raise ValueError(
            f"The factors of raw_shape must multiply to {name} = {size}; got {factors} with the product "
            f"{math.prod(factors)}: leave raw_shape out, or use factors such as {factorize(size, len(factors))}."
        )


def train_ranks(raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
    """Return the ranks (1, r_1, ..., r_{d-1}, 1) of a tensor train.

    An int is clipped at each bond to the largest useful rank, the smaller of m_1 n_1 ... m_k n_k and
    m_{k+1} n_{k+1} ... m_d n_d. A list of the d - 1 interior ranks is used as given; ValueError if one of them is too
    large to be useful, that is if r_k > r_{k-1} m_k n_k or r_k > m_{k+1} n_{k+1} r_{k+1}. A list of all d + 1 ranks, as
    returned, is not compared with the factors: a core may be a slice of a larger one, for which they are useful.
    """
    sizes = [m * n for m, n in zip(*raw_shape, strict=True)]
    d = len(sizes)
    rank = check_rank(rank)
    if isinstance(rank, int):
        interior = (min(rank, math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, d))
        return (1, *interior, 1)
    if len(rank) == d + 1 and rank[0] == rank[-1] == 1:
        return rank
    if len(rank) != d - 1:
        raise ValueError(
            f"A list of ranks must name the {d - 1} interior ranks of {d} cores; got {list(rank)} with {len(rank)}: "
            "pass one rank per bond, or one int for all."
        )
    ranks = (1, *rank, 1)
    for k in range(1, d):
        most = min(ranks[k - 1] * sizes[k - 1], sizes[k] * ranks[k + 1])
        if ranks[k] > most:
            raise ValueError(
                f"Rank {k} of {list(rank)} must be at most {most}, the most that the cores on its two sides can use; "
                f"got {ranks[k]}: lower it, or pass one int, which is clipped."
            )
    return ranks
