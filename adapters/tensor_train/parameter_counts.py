"""Trainable parameters of the published methods in closed form, from a rank and the sizes of a model.

    a train beside each of n linears    n sum r_{k-1} m_k n_k r_k
    one train for the whole model       sum S_k r_{k-1} m_k n_k r_k, S_k slices of a site mode, else S_k = 1

Ranks are clipped as in the layers. The formulas for an r that every bond can use are in ``adapters.published``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import t3nsor as t3
from adapters.tensor_train.modes import UNBOUNDED
from adapters.validation import ConfigurationError
from t3nsor.tucker import Tucker


def is_positive_int(value: Any) -> bool:
    """Return whether a value is an int, not a bool, and at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model that the closed forms depend on: its adapted linears, all (out, in), and their sites.

    Args:
        layers: blocks of all stacks.
        matrices: kinds of matrix in a layer, such as query and value.
        linears: the number of linears; by default layers times matrices.

    Raises:
        ConfigurationError: one of them is not a positive integer.
    """

    in_features: int = 768
    out_features: int = 768
    layers: int = 12
    matrices: int = 2
    heads: int = 12
    tasks: int = 1
    linears: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not is_positive_int(value) and (field.name, value) != ("linears", None):
                raise ConfigurationError(
                    f"Each size of a model must be a positive integer; got {field.name}={value!r}: "
                    "use the sizes of your model."
                )

    @property
    def n(self) -> int:
        """The number of linears."""
        return self.layers * self.matrices if self.linears is None else self.linears


ROBERTA_QUERY_VALUE = Sizes()
"""Query and value of RoBERTa-base, for which most of these papers report counts."""
T5_BASE_QUERY_VALUE = Sizes(layers=24, matrices=4, linears=72)
"""q and v of T5-base, in 12 + 12 self-attentions and 12 cross-attentions."""


def chain_parameters(
    rows: Sequence[int], columns: Sequence[int], rank: int | Sequence[int], slices: Sequence[int | None] | None = None
) -> int:
    """Return sum S_k r_{k-1} m_k n_k r_k, each r_k clipped to what the two sides of its bond can use, as in a train.

    Args:
        rows, columns: m_k and n_k. For (12, 16, 16), (8, 8, 12) at rank 8 the sum is 10,496.
        rank: of every bond, or the d - 1 interior ranks.
        slices: S_k for a core with one slice per site, which bounds no rank; None for a core with factors.
    """
    slices = [None] * len(rows) if slices is None else slices
    bounds = tuple(m if count is None else UNBOUNDED for m, count in zip(rows, slices, strict=True))
    ranks = t3.TensorTrain.resolve_ranks((bounds, tuple(columns)), rank)
    cores = zip(slices, ranks[:-1], rows, columns, ranks[1:], strict=True)
    return sum((count or 1) * a * m * n * b for count, a, m, n, b in cores)


def balanced_factors(sizes: Sizes, d: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the out and in factors of the shape mode "ascending"."""
    return t3.factorize(sizes.out_features, d), t3.factorize(sizes.in_features, d)


def factor_products(sizes: Sizes, d: int) -> list[int]:
    """Return m_k n_k of the balanced factors."""
    return [m * n for m, n in zip(*balanced_factors(sizes, d), strict=True)]


def low_rank_chain_parameters(rank: int, sizes: Sizes) -> int:
    """Count three cores of the in features, then three of the out features."""
    out, into = balanced_factors(sizes, 3)
    return sizes.n * chain_parameters((1, 1, 1, *out), (*into, 1, 1, 1), rank)


def lokr_parameters(rank: int, sizes: Sizes) -> int:
    """Count A (m_1, n_1), B (m_2, r) and C (r, n_2); ValueError for an r above min(m_2, n_2)."""
    (m, m_rest), (n, n_rest) = balanced_factors(sizes, 2)
    return sizes.n * chain_parameters((m, m_rest, 1), (n, 1, n_rest), [1, rank])


def tucker_parameters(rank: int, sizes: Sizes) -> int:
    """Count three factors and the core tensor."""
    ranks = Tucker.factor_ranks(balanced_factors(sizes, 3), rank)
    factors = sum(size * r for size, r in zip(factor_products(sizes, 3), ranks, strict=True))
    return sizes.n * (factors + math.prod(ranks))


def tensor_of_sites_parameters(rank: int, sizes: Sizes, *sites: int, heads: int | None = None) -> int:
    """Count one core for the in features, one per site mode, and one for the out features or two for heads x size."""
    out = (sizes.out_features,) if heads is None else (heads, sizes.out_features // heads)
    between = (1,) * len(sites)
    rows, columns = (1, *between, *out), (sizes.in_features, *between, *(1 for _ in out))
    return chain_parameters(rows, columns, rank, (None, *sites, *(None for _ in out)))
