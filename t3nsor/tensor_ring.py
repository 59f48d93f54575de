"""The tensor-ring format (Zhao et al. 2016, "Tensor Ring Decomposition", arXiv:1606.05535), for matrices.

W[(i_1..i_d), (j_1..j_d)] = trace( G_1[i_1, j_1] G_2[i_2, j_2] ... G_d[i_d, j_d] )

    core G_k   (r_{k-1}, m_k, n_k, r_k) with r_d = r_0 >= 1; a tensor train is the ring with r_0 = 1
"""

from collections.abc import Sequence

from .shapes import RawShape, positive_int
from .tensor_network import TensorNetwork


class TensorRing(TensorNetwork):
    """A matrix as a ring of cores of shape (r_{k-1}, m_k, n_k, r_k) with r_d = r_0; see `TensorNetwork`."""

    @classmethod
    def free_bonds(cls, d: int) -> range:
        """0 to d - 1; r_d is r_0."""
        return range(d)

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """(r_0, ..., r_{d-1}, r_0) for one int (every bond has it) or for the list of d ranks (r_0, ..., r_{d-1})."""
        d = len(raw_shape[0])
        if not isinstance(rank, Sequence) or isinstance(rank, str):
            return (positive_int(rank, "The rank"),) * (d + 1)
        if len(rank) != d:
            raise ValueError(
                f"A list of ring ranks must name r_0 to r_{d - 1}, one per core, but {list(rank)} has {len(rank)} of "
                f"them; pass {d}, or one int for all."
            )
        ranks = tuple(positive_int(r, "Each rank") for r in rank)
        return (*ranks, ranks[0])
