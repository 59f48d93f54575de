"""The Tucker format (Tucker 1966; De Lathauwer et al. 2000, SIAM J. Matrix Anal. 21(4)), read as a train.

W[(i_1..i_d), (j_1..j_d)] = sum over a_1..a_d of C[a_1, ..., a_d] U_1[i_1, j_1, a_1] ... U_d[i_d, j_d, a_d]

    factor U_k      (m_k, n_k, r_k)       a layer's Parameters, shared by index
    core tensor C   (r_1, ..., r_d)       a layer's Parameter, never shared
    core G_k        left of the pivot p   G_k[A, i, j, (A, a)] = U_k[i, j, a],  A = (a_1..a_{k-1}) passing through
                    at the pivot          G_p[A, i, j, Z] = sum_a C[A, a, Z] U_p[i, j, a],    Z = (a_{p+1}..a_d)
                    right of it           G_k[(a, Z), i, j, Z] = U_k[i, j, a]

The pivot minimises the sum of the train's ranks, r_1 ... r_k left of it and r_{k+1} ... r_d right of it. The format has
sum_k m_k n_k r_k + prod_k r_k parameters. For d = 2 it is a product of three matrices.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from .contraction import contract
from .cores import Cores, CoreShape
from .shapes import RawShape, check_rank
from .tensor_train import TensorTrain


class TuckerCores(Cores):
    """Factors (m_k, n_k, r_k), the entries of this list, and one core tensor (r_1, ..., r_d).

    Args:
        core_shapes: those of the train.
        factor_ranks: (r_1, ..., r_d); both are empty for a slice, as in `Cores`.
    """

    are_parameters = False

    def __init__(
        self,
        core_shapes: Sequence[CoreShape] = (),
        factor_ranks: Sequence[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        factor_shapes = [(m, n, r) for (_, m, n, _), r in zip(core_shapes, factor_ranks, strict=True)]
        super().__init__(core_shapes, device=device, dtype=dtype, stored_shapes=factor_shapes)
        self.core_tensor = nn.Parameter(torch.empty(tuple(factor_ranks), device=device, dtype=dtype))

    def live(self) -> list[Tensor]:
        ranks = tuple(self.core_tensor.shape)
        factors, p = [self.read(k) for k in range(len(ranks))], pivot(ranks)
        return [
            *(_pass_left(factors[k], math.prod(ranks[:k])) for k in range(p)),
            self._at_pivot(factors[p], p),
            *(_pass_right(factors[k], math.prod(ranks[k + 1 :])) for k in range(p + 1, len(ranks))),
        ]

    def joint_parameters(self) -> list[nn.Parameter]:
        return [self.core_tensor]

    def reset(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        """Draw d + 1 tensors whose paths are the entries of the core tensor: the matrix has the wanted variance."""
        factors = [self.read(k).permute(2, 0, 1)[..., None] for k in range(len(self))]  # (m, n, r) -> (r, m, n, 1)
        fill([self.core_tensor.reshape(1, 1, 1, -1), *factors])

    def _at_pivot(self, factor: Tensor, p: int) -> Tensor:
        """(m, n, r) x (r_1, ..., r_d) -> (r_1 ... r_{p-1}, m, n, r_{p+1} ... r_d)."""
        ranks = self.core_tensor.shape
        core_tensor = self.core_tensor.reshape(math.prod(ranks[:p]), ranks[p], math.prod(ranks[p + 1 :]))
        return contract("AaZ,mna->AmnZ", core_tensor, factor)


class Tucker(TensorTrain):
    """Factors (m_k, n_k, r_k) and a core tensor (r_1, ..., r_d) that connects them.

    Read as a train; ranks are those of the factors. A layer's parameters are `TuckerCores`.
    """

    @classmethod
    def free_bonds(cls, d: int) -> range:
        """1 to d: a list of ranks gives those of the d factors."""
        return range(1, d + 1)

    @classmethod
    def factor_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """Return (r_1, ..., r_d): an int is clipped to m_k n_k in each factor, a list of d is checked."""
        sizes = [m * n for m, n in zip(*raw_shape, strict=True)]
        rank = check_rank(rank)
        if isinstance(rank, int):
            return tuple(min(rank, size) for size in sizes)
        if len(rank) != len(sizes):
            raise ValueError(
                f"A list of Tucker ranks must name r_1 to r_{len(sizes)}, one per factor; got {list(rank)} with "
                f"{len(rank)} of them: pass {len(sizes)}, or one int for all."
            )
        for k, (r, size) in enumerate(zip(rank, sizes, strict=True)):
            if r > size:
                raise ValueError(
                    f"The rank of a factor must not exceed its m_k n_k; got rank {r} for factor {k} with m_k n_k = "
                    f"{size}: pass at most {size}, or one int for all."
                )
        return rank

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """Return the ranks of the train for the ranks of the factors, as accepted by `factor_ranks`."""
        return train_ranks_of(cls.factor_ranks(raw_shape, rank))

    @classmethod
    def make_cores(
        cls,
        raw_shape: RawShape,
        rank: int | Sequence[int],
        disabled: Iterable[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> TuckerCores:
        """Return factors and a core tensor for a layer; ValueError for disabled cores."""
        if disabled := tuple(disabled):
            raise ValueError(f"The format 'tucker' does not support disabled_cores; got {disabled}: leave them out.")
        ranks = cls.factor_ranks(raw_shape, rank)
        bonds = train_ranks_of(ranks)
        core_shapes = list(zip(bonds[:-1], *raw_shape, bonds[1:], strict=True))
        return TuckerCores(core_shapes, ranks, device=device, dtype=dtype)


def pivot(ranks: Sequence[int]) -> int:
    """Return the index of the core that absorbs the core tensor."""
    return min(range(len(ranks)), key=lambda p: sum(_bonds(ranks, p)))


def train_ranks_of(ranks: Sequence[int]) -> tuple[int, ...]:
    """Return the ranks (1, ..., 1) of the train for those of the factors."""
    return tuple(_bonds(ranks, pivot(ranks)))


def _bonds(ranks: Sequence[int], p: int) -> list[int]:
    """Return r_1 ... r_k up to the pivot and r_{k+1} ... r_d after it, for k = 0..d."""
    return [math.prod(ranks[:k]) if k <= p else math.prod(ranks[k:]) for k in range(len(ranks) + 1)]


def _pass_left(factor: Tensor, passing: int) -> Tensor:
    """(m, n, r) -> (A, m, n, A r)."""
    identity = torch.eye(passing, dtype=factor.dtype, device=factor.device)
    return contract("AB,mnr->AmnBr", identity, factor).flatten(3)


def _pass_right(factor: Tensor, passing: int) -> Tensor:
    """(m, n, r) -> (r Z, m, n, Z)."""
    identity = torch.eye(passing, dtype=factor.dtype, device=factor.device)
    return contract("YZ,mnr->rYmnZ", identity, factor).flatten(0, 1)
