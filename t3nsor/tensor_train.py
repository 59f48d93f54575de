"""The tensor-train format (Oseledets 2011, "Tensor-Train Decomposition", SIAM J. Sci. Comput. 33(5)), for matrices.

W[(i_1..i_d), (j_1..j_d)] = G_1[i_1, j_1] G_2[i_2, j_2] ... G_d[i_d, j_d]

    core G_k        (r_{k-1}, m_k, n_k, r_k),  r_0 = r_d = 1;  a TT vector has n_k = 1
    left unfolding  (r_{k-1} m_k n_k, r_k),    orthonormal columns left of the orthogonality centre
    right unfolding (r_{k-1}, m_k n_k r_k),    orthonormal rows right of it
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .contraction import contract
from .shapes import RawShape, train_ranks
from .tensor_network import TensorNetwork
from .truncation import check_finite, error_budget, factoring_dtype, rank_caps, truncated_svd


class TensorTrain(TensorNetwork):
    """A matrix given by a train of cores (r_{k-1}, m_k, n_k, r_k) with r_0 = r_d = 1.

    See `TensorNetwork`."""

    @classmethod
    def free_bonds(cls, d: int) -> range:
        """1 to d - 1, the interior ones."""
        return range(1, d)

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """Return (1, r_1, ..., r_{d-1}, 1): an int is clipped at each bond, a list is checked, see `train_ranks`."""
        return train_ranks(raw_shape, rank)

    def _check(self) -> None:
        super()._check()
        if self.ranks[0] != 1:
            raise ValueError(
                f"A TensorTrain must begin and end with rank 1; got r_0 = r_d = {self.ranks[0]}: use a TensorRing."
            )

    def _block_diagonal(self, k: int, a: Tensor, b: Tensor) -> Tensor:
        """Block-diagonal within the train; concatenated along r_1 in the first core and along r_{d-1} in the last."""
        last = len(self.cores) - 1
        if last == 0:
            return a + b
        if k == 0:
            return torch.cat([a, b], dim=3)
        if k == last:
            return torch.cat([a, b], dim=0)
        return super()._block_diagonal(k, a, b)

    def to_train(self) -> "TensorTrain":
        """Return the plain train of these cores, also for the formats that are read as a train."""
        return TensorTrain(self.cores)

    def orthogonalize(self, center: int = -1) -> "TensorTrain":
        """Return the same matrix with orthonormal unfoldings left and right of core `center`.

        Ranks shrink to what the shape can use. Half-precision cores are factored in float32. Source: Oseledets 2011,
        section 3.

        Raises:
            ValueError: `center` is not the index of a core.
        """
        d = len(self.cores)
        if not -d <= center < d:
            raise ValueError(f"center must index one of the {d} cores; got {center}: use -{d} to {d - 1}.")
        center %= d
        cores = [core.to(factoring_dtype(core.dtype)) for core in self.cores]
        for k in range(center):
            r, m, n, s = cores[k].shape
            q, remainder = torch.linalg.qr(cores[k].reshape(r * m * n, s))  # (r m n, s) -> (r m n, q), (q, s)
            cores[k] = q.reshape(r, m, n, -1)
            cores[k + 1] = _into_next(remainder, cores[k + 1])
        for k in range(d - 1, center, -1):
            r, m, n, s = cores[k].shape
            q, remainder = torch.linalg.qr(cores[k].reshape(r, m * n * s).mT)  # (m n s, r) -> (m n s, q), (q, r)
            cores[k] = q.mT.reshape(-1, m, n, s)
            cores[k - 1] = _into_previous(cores[k - 1], remainder.mT)
        return TensorTrain(core.to(self.dtype) for core in cores)

    def round(self, max_rank: int | Sequence[int] | None = None, rel_tol: float | None = None) -> "TensorTrain":
        """Return a nearby train of smaller ranks by TT-rounding (Oseledets 2011, algorithm 2).

        Args:
            max_rank: a cap on each interior rank, an int or a list of d - 1; None for no cap.
            rel_tol: if no cap is active, || W - rounded || <= rel_tol * || W || in the Frobenius norm; None to keep
                every rank that the shape and the cap allow.

        Raises:
            ValueError: a core holds a NaN or an infinity, or max_rank or rel_tol is out of range.
        """
        d = len(self.cores)
        caps = rank_caps(max_rank, d - 1)
        for core in self.cores:
            check_finite(core, "Each core")
        start = self.to(factoring_dtype(self.dtype)).orthogonalize(center=0)
        budget = error_budget(rel_tol, start.cores[0], d - 1)
        cores = list(start.cores)
        for k in range(d - 1):
            r, m, n, s = cores[k].shape
            u, sv = truncated_svd(cores[k].reshape(r * m * n, s), caps[k], budget)  # (r m n, s) -> (r m n, q), (q, s)
            cores[k] = u.reshape(r, m, n, -1)
            cores[k + 1] = _into_next(sv, cores[k + 1])
        return TensorTrain(core.to(self.dtype) for core in cores)

    def norm(self) -> Tensor:
        """Return the Frobenius norm, a 0-dimensional tensor, from orthogonal cores: accurate under cancellation."""
        last = self.to(factoring_dtype(self.dtype)).orthogonalize().cores[-1]
        return torch.linalg.vector_norm(last).to(self.dtype)


def _into_next(factor: Tensor, core: Tensor) -> Tensor:
    """(q, r) x (r, m, n, s) -> (q, m, n, s)."""
    return contract("qr,rmns->qmns", factor, core)


def _into_previous(core: Tensor, factor: Tensor) -> Tensor:
    """(r, m, n, s) x (s, q) -> (r, m, n, q)."""
    return contract("rmns,sq->rmnq", core, factor)
