"""The tensor-ring format (Zhao et al. 2016, "Tensor Ring Decomposition", arXiv:1606.05535), for matrices.

W[(i_1..i_d), (j_1..j_d)] = trace( G_1[i_1, j_1] G_2[i_2, j_2] ... G_d[i_d, j_d] )

    core G_k   (r_{k-1}, m_k, n_k, r_k) with r_d = r_0 >= 1; a tensor train is the ring with r_0 = 1
"""

from collections.abc import Sequence

import torch

from .contraction import contract
from .shapes import RawShape, check_rank
from .tensor_network import TensorNetwork
from .tensor_train import TensorTrain


class TensorRing(TensorNetwork):
    """A matrix given by a ring of cores (r_{k-1}, m_k, n_k, r_k) with r_d = r_0.

    See `TensorNetwork`."""

    @classmethod
    def free_bonds(cls, d: int) -> range:
        """0 to d - 1; r_d is r_0."""
        return range(d)

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """Return (r_0, ..., r_{d-1}, r_0) for one int, the rank of every bond, or the list of d ranks."""
        d = len(raw_shape[0])
        rank = check_rank(rank)
        if isinstance(rank, int):
            return (rank,) * (d + 1)
        if len(rank) != d:
            raise ValueError(
                f"A list of ring ranks must name r_0 to r_{d - 1}, one per core; got {list(rank)} with {len(rank)} of "
                f"them: pass {d}, or one int for all."
            )
        return (*rank, rank[0])

    def to_train(self) -> TensorTrain:
        """Return the same matrix as a train whose bonds also carry the outer rank index, with ranks r_0 r_k."""
        outer, last = self.ranks[0], len(self.cores) - 1
        if last == 0:
            return TensorTrain([contract("amna->mn", self.cores[0])[None, ..., None]])  # (r, m, n, r) -> (1, m, n, 1)
        passing = torch.eye(outer, dtype=self.dtype, device=self.device)
        train = []
        for k, core in enumerate(self.cores):
            if k == 0:
                train.append(contract("amnb->mnab", core).flatten(2)[None])  # (r_0, m, n, r) -> (1, m, n, r_0 r)
            elif k == last:
                train.append(contract("bmna->abmn", core).flatten(0, 1)[..., None])  # (r_0 r, m, n, 1)
            else:
                wide = contract("ac,bmns->abmncs", passing, core)  # (r, m, n, s) -> (r_0, r, m, n, r_0, s)
                train.append(wide.flatten(4, 5).flatten(0, 1))  # (r_0 r, m, n, r_0 s)
        return TensorTrain(train)
