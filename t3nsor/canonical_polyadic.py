"""The canonical polyadic format (Hitchcock 1927; Kolda & Bader 2009, SIAM Review 51(3), section 3), read as a train.

W[(i_1..i_d), (j_1..j_d)] = sum_a F_1[i_1, j_1, a] F_2[i_2, j_2, a] ... F_d[i_d, j_d, a]

    factor F_k   (m_k, n_k, r)            a layer's Parameters, what is shared goes by its index
    core G_k     (r, m_k, n_k, r)         G_k[a, i, j, b] = F_k[i, j, a] where a = b, else 0;  r_0 = 1 in the
                                          first and r_d = 1 in the last

That is sum_k m_k n_k r numbers, where a train of these ranks has about r times as many. The cores are made when they
are read, so that contraction costs what the train of rank r costs.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .cores import Cores
from .shapes import RawShape, positive_int
from .tensor_train import TensorTrain


class DiagonalCores(Cores):
    """Cores that are diagonal in their rank indices, held as factors (m, n, r); a disabled core is held whole."""

    are_parameters = False

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]] = (),
        disabled: Iterable[int] = (),
        basis_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.whole = tuple(disabled)
        last = len(shapes) - 1
        held = [
            (left, m, n, right) if k in self.whole else (m, n, right if k < last else left)
            for k, (left, m, n, right) in enumerate(shapes)
        ]
        super().__init__(held, basis_size=basis_size, device=device, dtype=dtype)

    def live(self) -> list[Tensor]:
        return [self.read(k) if k in self.whole else self._diagonal(k) for k in range(len(self))]

    def reset(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        """Draw the factors as a chain whose paths are the r values of a, so that the matrix has the variance asked."""
        chain = [self.read(k) for k in range(len(self))]
        first = next((k for k in range(len(self)) if k not in self.whole), None)
        for k, factor in enumerate(chain):
            if k not in self.whole:
                chain[k] = factor[None] if k == first else factor.permute(2, 0, 1)[..., None]
        fill(chain)

    def _diagonal(self, k: int) -> Tensor:
        """(1, m, n, r) of the first factor, (r, m, n, 1) of the last, (r, m, n, r) of the others."""
        factor = self.read(k)
        if k == 0:
            return factor[None]
        if k == len(self) - 1:
            return factor.permute(2, 0, 1)[..., None]  # (m, n, r) -> (r, m, n, 1)
        return torch.diag_embed(factor, dim1=0, dim2=3)  # (m, n, r) -> (r, m, n, r)


class CanonicalPolyadic(TensorTrain):
    """A tensor train as a network; what is its own is that all ranks are one, and how a layer holds the cores."""

    storage = DiagonalCores

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """(1, r, ..., r, 1), not clipped: the rank of a canonical decomposition may exceed that of any bond."""
        d = len(raw_shape[0])
        if isinstance(rank, Sequence) and not isinstance(rank, str):
            if len(rank) != d - 1 or len(set(rank)) > 1:
                raise ValueError(
                    f"The bonds of a canonical polyadic decomposition have one rank, but {list(rank)} was given for "
                    f"{d - 1} bonds; pass one int."
                )
            rank = rank[0] if rank else 1
        return (1, *((positive_int(rank, "The rank"),) * (d - 1)), 1)
