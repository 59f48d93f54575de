"""A decomposition of a dense matrix whose cores share the singular values of each bond evenly.

At bond k the matrix is L_k diag(s_k) R_k, L_k (left entries, r_k) of orthonormal columns, R_k (r_k, right entries) of
orthonormal rows, and R_{k-1} = V_k R_k with cores V_k (r_{k-1}, m_k, n_k, r_k) of orthonormal rows. Then

    G_k = s_{k-1}^(1/2) V_k s_k^(-1/2)        gives G_1 ... G_k = L_k s_k^(1/2)  and  G_{k+1} ... G_d = s_k^(1/2) R_k

For d = 2 this is U s^(1/2) and s^(1/2) V^T, the initialisation of PiSSA (Meng et al. 2024, arXiv:2404.02948, eq. 2 and
3). A rank index without a singular value is zero on its left and orthonormal on its right, so that it has a gradient.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .contraction import contract
from .decompositions import tr_svd, tt_svd
from .truncation import factoring_dtype


def even_cores(dense: Tensor, shapes: Sequence[tuple[int, int, int, int]]) -> list[Tensor]:
    """Return cores of these shapes for a matrix (M, N), by `tt_svd`, or by `tr_svd` if r_0 > 1; at least in float32.

    In a ring only the bonds 1 to d - 1 are split evenly, and a rank index that `tr_svd` does not use is zero on both
    sides. Raises the errors of the two decompositions.

    Args:
        dense: (M, N) of any floating dtype.
        shapes: (r_{k-1}, m_k, n_k, r_k) of each core.
    """
    ranks, rows, columns, _ = zip(*shapes, strict=True)
    if isinstance(dense, Tensor) and dense.is_floating_point():
        dense = dense.to(factoring_dtype(dense.dtype))
    if ranks[0] == 1:
        cores = list(tt_svd(dense, (rows, columns), max_rank=ranks[1:]).cores)
    else:
        cores = list(tr_svd(dense, (rows, columns), max_rank=ranks).cores)
    halves = []
    for k in range(len(cores) - 1, 0, -1):
        r, m, n, s = cores[k].shape
        u, values, vh = torch.linalg.svd(cores[k].reshape(r, m * n * s), full_matrices=False)
        cores[k] = vh.reshape(-1, m, n, s)
        cores[k - 1] = contract("amnr,rq->amnq", cores[k - 1], u * values)  # (a, m, n, r) x (r, q) -> (a, m, n, q)
        halves.append((k, *_halves(values)))
    for k, left, right in halves:
        cores[k - 1] = cores[k - 1] * left
        cores[k] = cores[k] * right[:, None, None, None]
    return [_padded(core, shape) for core, shape in zip(cores, shapes, strict=True)]


def _halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return s^(-1/2) for the left of a bond and s^(1/2) for its right; 0 and 1 if s is only rounding error."""
    is_value = values > values[0] * torch.finfo(values.dtype).eps * len(values)
    root = torch.where(is_value, values, 1.0).sqrt()
    return is_value / root, root


def _padded(core: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return the core, zero-padded in its rank indices."""
    padded = core.new_zeros(shape)
    padded[: core.shape[0], ..., : core.shape[3]] = core
    return padded
