"""The canonical polyadic format (Hitchcock 1927; Kolda & Bader 2009, SIAM Review 51(3), section 3), read as a train.

W[(i_1..i_d), (j_1..j_d)] = sum_a F_1[i_1, j_1, a] F_2[i_2, j_2, a] ... F_d[i_d, j_d, a]

    factor F_k   (m_k, n_k, r)            a layer's Parameters, shared by index
    core G_k     (r, m_k, n_k, r)         G_k[a, i, j, b] = F_k[i, j, a] where a = b, else 0;  r_0 = 1 in the
                                          first and r_d = 1 in the last

That is sum_k m_k n_k r parameters; a train of these ranks has about r times as many. The cores are built when they are
read, so that contraction costs as much as that of a train of rank r.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .cores import Cores, CoreShape
from .shapes import RawShape, check_rank
from .tensor_train import TensorTrain


class DiagonalCores(Cores):
    """Cores that are diagonal in their rank indices, stored as factors (m, n, r); disabled ones are stored in full."""

    are_parameters = False

    def __init__(
        self,
        core_shapes: Sequence[CoreShape] = (),
        disabled: Iterable[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        disabled, last = tuple(disabled), len(core_shapes) - 1
        stored_shapes = [
            (left, m, n, right) if k in disabled else (m, n, right if k < last else left)
            for k, (left, m, n, right) in enumerate(core_shapes)
        ]
        super().__init__(core_shapes, disabled, device=device, dtype=dtype, stored_shapes=stored_shapes)
        self.stored_in_full = disabled

    def live(self) -> list[Tensor]:
        return [self.read(k) if k in self.stored_in_full else self._diagonal(k) for k in range(len(self))]

    def reset(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        """Draw the factors as a chain whose paths are the r values of a, so that the matrix has the wanted variance."""
        chain = [self.read(k) for k in range(len(self))]
        first = next((k for k in range(len(self)) if k not in self.stored_in_full), None)
        for k, factor in enumerate(chain):
            if k not in self.stored_in_full:
                chain[k] = factor[None] if k == first else factor.permute(2, 0, 1)[..., None]
        fill(chain)

    def _diagonal(self, k: int) -> Tensor:
        """Return core k: (1, m, n, r) for the first factor, (r, m, n, 1) for the last, else (r, m, n, r)."""
        factor = self.read(k)
        if k == 0:
            return factor[None]
        if k == len(self) - 1:
            return factor.permute(2, 0, 1)[..., None]  # (m, n, r) -> (r, m, n, 1)
        return torch.diag_embed(factor, dim1=0, dim2=3)  # (m, n, r) -> (r, m, n, r)


class CanonicalPolyadic(TensorTrain):
    """A sum of products of factors (m_k, n_k, r): a tensor train with cores that are diagonal in their rank indices.

    A layer's parameters are `DiagonalCores`.
    """

    storage = DiagonalCores

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """Return (1, r, ..., r, 1), not clipped: the rank of a CP decomposition may exceed that of any bond."""
        d = len(raw_shape[0])
        rank = check_rank(rank)
        if isinstance(rank, int):
            return (1, *(rank,) * (d - 1), 1)
        if len(rank) != d - 1 or len(set(rank)) > 1:
            raise ValueError(
                f"The bonds of a canonical polyadic decomposition have one rank; got {list(rank)} for "
                f"{d - 1} bonds: pass one int."
            )
        return (1, *rank, 1)
