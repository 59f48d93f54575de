"""The Tucker format (Tucker 1966; De Lathauwer et al. 2000, SIAM J. Matrix Anal. 21(4)), read as a train.

W[(i_1..i_d), (j_1..j_d)] = sum over a_1..a_d of C[a_1, ..., a_d] U_1[i_1, j_1, a_1] ... U_d[i_d, j_d, a_d]

    factor U_k      (m_k, n_k, r_k)       a layer's Parameters, what is shared goes by its index
    core tensor C   (r_1, ..., r_d)       a layer's Parameter, its own
    core G_k        left of the pivot p   G_k[A, i, j, (A, a)] = U_k[i, j, a],  A = (a_1..a_{k-1}) passing through
                    at the pivot          G_p[A, i, j, Z] = sum_a C[A, a, Z] U_p[i, j, a],    Z = (a_{p+1}..a_d)
                    right of it           G_k[(a, Z), i, j, Z] = U_k[i, j, a]

The pivot is where the ranks of the train, r_1 ... r_k left of it and r_{k+1} ... r_d right of it, have the least sum.
That is sum_k m_k n_k r_k + prod_k r_k numbers. For d = 2 it is a product of three matrices.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from .contraction import contract
from .cores import Cores
from .shapes import RawShape, positive_int
from .tensor_train import TensorTrain


class TuckerCores(Cores):
    """Factors (m_k, n_k, r_k), the entries of this list, and one core tensor (r_1, ..., r_d).

    Args:
        raw_shape: ((m_1..m_d), (n_1..n_d)); none for a slice, as in `Cores`.
        ranks: (r_1, ..., r_d).
    """

    are_parameters = False

    def __init__(
        self,
        raw_shape: RawShape = ((), ()),
        ranks: Sequence[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(list(zip(*raw_shape, ranks, strict=True)), device=device, dtype=dtype)
        self.core_tensor = nn.Parameter(torch.empty(tuple(ranks), device=device, dtype=dtype))

    def live(self) -> list[Tensor]:
        ranks = tuple(self.core_tensor.shape)
        factors, p = [self.read(k) for k in range(len(ranks))], pivot(ranks)
        return [
            *(_pass_left(factors[k], math.prod(ranks[:k])) for k in range(p)),
            self._at_pivot(factors[p], p),
            *(_pass_right(factors[k], math.prod(ranks[k + 1 :])) for k in range(p + 1, len(ranks))),
        ]

    def common(self) -> list[nn.Parameter]:
        return [self.core_tensor]

    def reset(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        """Draw d + 1 tensors whose paths are the entries of the core tensor: the matrix has the variance asked."""
        factors = [self.read(k).permute(2, 0, 1)[..., None] for k in range(len(self))]  # (m, n, r) -> (r, m, n, 1)
        fill([self.core_tensor.reshape(1, 1, 1, -1), *factors])

    def _at_pivot(self, factor: Tensor, p: int) -> Tensor:
        """(m, n, r) x (r_1, ..., r_d) -> (r_1 ... r_{p-1}, m, n, r_{p+1} ... r_d)."""
        ranks = self.core_tensor.shape
        core_tensor = self.core_tensor.reshape(math.prod(ranks[:p]), ranks[p], math.prod(ranks[p + 1 :]))
        return contract("AaZ,mna->AmnZ", core_tensor, factor)


class Tucker(TensorTrain):
    """A tensor train as a network; what is its own is what a rank means, and how a layer holds the cores."""

    @classmethod
    def free_bonds(cls, d: int) -> range:
        """1 to d: a list of ranks names those of the d factors."""
        return range(1, d + 1)

    @classmethod
    def factor_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """(r_1, ..., r_d): an int is cut to m_k n_k in each factor, a list of d is checked."""
        sizes = [m * n for m, n in zip(*raw_shape, strict=True)]
        if not isinstance(rank, Sequence) or isinstance(rank, str):
            return tuple(min(positive_int(rank, "The rank"), size) for size in sizes)
        if len(rank) != len(sizes):
            raise ValueError(
                f"A list of Tucker ranks must name r_1 to r_{len(sizes)}, one per factor, but {list(rank)} has "
                f"{len(rank)} of them; pass {len(sizes)}, or one int for all."
            )
        ranks = tuple(positive_int(r, "Each rank") for r in rank)
        for k, (r, size) in enumerate(zip(ranks, sizes, strict=True)):
            if r > size:
                raise ValueError(
                    f"The rank of a factor must not exceed its m_k n_k, but factor {k} has rank {r} and m_k n_k = "
                    f"{size}; pass at most {size}, or one int for all."
                )
        return ranks

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """The ranks of the train, for ranks of the factors as `factor_ranks` takes them."""
        return train_ranks_of(cls.factor_ranks(raw_shape, rank))

    @classmethod
    def make_cores(
        cls,
        raw_shape: RawShape,
        rank: int | Sequence[int],
        disabled: Iterable[int] = (),
        basis_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> TuckerCores:
        """Factors and a core tensor for a layer; ValueError for what this format does not have."""
        for name, given in (("disabled_cores", tuple(disabled)), ("basis_size", basis_size)):
            if given:
                raise ValueError(f"The format 'tucker' has no {name}, but {given} was given; leave it out.")
        return TuckerCores(raw_shape, cls.factor_ranks(raw_shape, rank), device=device, dtype=dtype)


def pivot(ranks: Sequence[int]) -> int:
    """The index of the core that absorbs the core tensor."""
    return min(range(len(ranks)), key=lambda p: sum(_bonds(ranks, p)))


def train_ranks_of(ranks: Sequence[int]) -> tuple[int, ...]:
    """(1, ..., 1): the ranks of the train for those of the factors."""
    return tuple(_bonds(ranks, pivot(ranks)))


def _bonds(ranks: Sequence[int], p: int) -> list[int]:
    """r_1 ... r_k up to the pivot, r_{k+1} ... r_d after it, for k = 0..d."""
    return [math.prod(ranks[:k]) if k <= p else math.prod(ranks[k:]) for k in range(len(ranks) + 1)]


def _pass_left(factor: Tensor, passing: int) -> Tensor:
    """(m, n, r) -> (A, m, n, A r)."""
    identity = torch.eye(passing, dtype=factor.dtype, device=factor.device)
    return contract("AB,mnr->AmnBr", identity, factor).flatten(3)


def _pass_right(factor: Tensor, passing: int) -> Tensor:
    """(m, n, r) -> (r Z, m, n, Z)."""
    identity = torch.eye(passing, dtype=factor.dtype, device=factor.device)
    return contract("YZ,mnr->rYmnZ", identity, factor).flatten(0, 1)
