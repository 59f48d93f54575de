"""How many numbers the published methods train, from a rank and the sizes of a model.

    a train beside each of n linears    n sum r_{k-1} m_k n_k r_k
    one train for the model             sum S_k r_{k-1} m_k n_k r_k, S_k = 1 but for the slices of a site mode

Ranks are cut as in a model. For an r that every bond can use, ``adapters.published`` has the formulas written out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import t3nsor as t3
from adapters.tensor_train.modes import MANY
from adapters.validation import ConfigurationError
from t3nsor.tucker import Tucker


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 1 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class Sizes:
    """What the closed forms need to know of a model: its linears, all (out, in), and the sites that they stand at.

    ``linears`` is layers times matrices where every layer has every kind of matrix.

    Raises:
        ConfigurationError: one of them is no whole number from 1 on.
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
            if not is_count(value) and (field.name, value) != ("linears", None):
                raise ConfigurationError(
                    f"Each of the sizes of a model is a whole number from 1 on; got {field.name}={value!r}: "
                    "take the model's own."
                )

    @property
    def n(self) -> int:
        """How many linears there are."""
        return self.layers * self.matrices if self.linears is None else self.linears


ROBERTA_QUERY_VALUE = Sizes()
"""The query and value of RoBERTa-base, which most of these papers report."""
T5_BASE_QUERY_VALUE = Sizes(layers=24, matrices=4, linears=72)
"""q and v of T5-base: of 12 + 12 self-attentions and 12 cross-attentions."""


def chain_parameters(
    rows: Sequence[int], columns: Sequence[int], rank: int | Sequence[int], slices: Sequence[int | None] | None = None
) -> int:
    """sum S_k r_{k-1} m_k n_k r_k, each r_k cut to what the two sides of its bond can use, as in a train.

    Args:
        slices: S_k where core k is one slice for each of S_k sites, which bound no rank; None for a core of features.
    """
    slices = [None] * len(rows) if slices is None else slices
    bounds = tuple(m if count is None else MANY for m, count in zip(rows, slices, strict=True))
    ranks = t3.TensorTrain.resolve_ranks((bounds, tuple(columns)), rank)
    cores = zip(slices, ranks[:-1], rows, columns, ranks[1:], strict=True)
    return sum((count or 1) * a * m * n * b for count, a, m, n, b in cores)


def balanced(sizes: Sizes, d: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The factors of "ascending" shapes."""
    return t3.factorize(sizes.out_features, d), t3.factorize(sizes.in_features, d)


def entries(sizes: Sizes, d: int) -> list[int]:
    """m_k n_k of those."""
    return [m * n for m, n in zip(*balanced(sizes, d), strict=True)]


def low_rank_chain_parameters(rank: int, sizes: Sizes) -> int:
    """Three cores for the in features, then three for the out features."""
    out, into = balanced(sizes, 3)
    return sizes.n * chain_parameters((1, 1, 1, *out), (*into, 1, 1, 1), rank)


def lokr_parameters(rank: int, sizes: Sizes) -> int:
    """A (m_1, n_1), B (m_2, r) and C (r, n_2); ValueError for an r of no use."""
    (m, m_rest), (n, n_rest) = balanced(sizes, 2)
    return sizes.n * chain_parameters((m, m_rest, 1), (n, 1, n_rest), [1, rank])


def tucker_parameters(rank: int, sizes: Sizes) -> int:
    """Three factors and the core tensor."""
    ranks = Tucker.factor_ranks(balanced(sizes, 3), rank)
    factors = sum(size * r for size, r in zip(entries(sizes, 3), ranks, strict=True))
    return sizes.n * (factors + math.prod(ranks))


def tensor_of_sites_parameters(rank: int, sizes: Sizes, *sites: int, heads: int | None = None) -> int:
    """Cores for the in features, for each of the site modes, and for the out features or heads and head size."""
    out = (sizes.out_features,) if heads is None else (heads, sizes.out_features // heads)
    between = (1,) * len(sites)
    rows, columns = (1, *between, *out), (sizes.in_features, *between, *(1 for _ in out))
    return chain_parameters(rows, columns, rank, (None, *sites, *(None for _ in out)))
