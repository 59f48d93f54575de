"""Decompositions of a dense matrix, and conversions between two-core trains and sums of Kronecker products.

dense (M, N) -> (m_1, ..., m_d, n_1, ..., n_d) -> (m_1 n_1, m_2 n_2, ..., m_d n_d), then one truncated SVD per bond.

A sum of r Kronecker products, sum_i A_i (x) B_i with A (r, m_1, n_1) and B (r, m_2, n_2), is the two-core train of rank
r with G_1[0, :, :, i] = A_i and G_2[i, :, :, 0] = B_i; the decomposition of Van Loan and Pitsianis is its TT-SVD.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .shapes import RawShape, check_product, check_raw_shape
from .tensor_ring import TensorRing
from .tensor_train import TensorTrain
from .truncation import check_finite, error_budget, factoring_dtype, rank_caps, truncated_svd


def tt_svd(
    dense: Tensor,
    raw_shape: Sequence[Sequence[int]],
    max_rank: int | Sequence[int] | None = None,
    rel_tol: float | None = None,
) -> TensorTrain:
    """Return the TT-SVD of a matrix (Oseledets 2011, algorithm 1).

    Args:
        dense: the matrix (M, N), or a vector (M,) if every n_k is 1; any floating-point dtype, which the cores have too
            (half precision is factored in float32).
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)).
        max_rank: a cap on each interior rank, an int or a list of d - 1; None for no cap.
        rel_tol: if no cap is active, || dense - full() || <= rel_tol * || dense || in the Frobenius norm. None keeps
            every rank that shape and cap allow, including zero singular values: ranks then depend on shapes only.

    With a cap, the squared error is at most the sum over bonds of the squared errors of the best rank-r_k
    approximations of the unfoldings (theorem 2.2), and the error is at most sqrt(d - 1) times that of the best train
    (corollary 2.4).

    Raises:
        TypeError: dense is not a floating-point tensor.
        ValueError: shapes do not fit, dense holds a NaN or an infinity, or max_rank or rel_tol is out of range.
    """
    rows, columns = check_raw_shape(raw_shape)
    tensor = _interleaved(dense, (rows, columns))
    d = len(rows)
    caps = rank_caps(max_rank, d - 1)
    budget = error_budget(rel_tol, tensor, d - 1)
    cores, rank, rest = [], 1, tensor
    for k in range(d - 1):
        unfolding = rest.reshape(rank * rows[k] * columns[k], -1)
        u, rest = truncated_svd(unfolding, caps[k], budget)  # (r m n, s), (s, left)
        cores.append(u.reshape(rank, rows[k], columns[k], -1))
        rank = u.shape[1]
    cores.append(rest.reshape(rank, rows[-1], columns[-1], 1))
    return TensorTrain(core.to(dense.dtype) for core in cores)


def tr_svd(
    dense: Tensor,
    raw_shape: Sequence[Sequence[int]],
    max_rank: int | Sequence[int] | None = None,
    rel_tol: float | None = None,
) -> TensorRing:
    """Return the TR-SVD of a matrix (Zhao et al. 2016, algorithm 1); the first split's rank is factored into r_0 r_1.

    Arguments and errors as for `tt_svd`, but a list `max_rank` has the d entries (r_0, ..., r_{d-1}). The first split
    creates two bonds and may lose two d-ths of the allowed squared error, each other split one d-th.
    """
    rows, columns = check_raw_shape(raw_shape)
    tensor = _interleaved(dense, (rows, columns))
    d = len(rows)
    caps = rank_caps(max_rank, d)
    if d == 1:
        return TensorRing([tensor.reshape(1, rows[0], columns[0], 1).to(dense.dtype)])
    budget = error_budget(rel_tol, tensor, d)
    first_budget = None if budget is None else math.sqrt(2) * budget
    u, rest = truncated_svd(tensor.reshape(rows[0] * columns[0], -1), None, first_budget)  # (m n, q), (q, left)
    outer, rank = _split_rank(u.shape[1], caps[0], caps[1])
    u, rest = u[:, : outer * rank], rest[: outer * rank]
    cores = [u.reshape(rows[0], columns[0], outer, rank).permute(2, 0, 1, 3)]  # (m, n, r_0, r_1) -> (r_0, m, n, r_1)
    rest = rest.reshape(outer, rank, -1).permute(1, 2, 0)  # (r_0, r_1, left) -> (r_1, left, r_0)
    for k in range(1, d - 1):
        unfolding = rest.reshape(rank * rows[k] * columns[k], -1)
        u, rest = truncated_svd(unfolding, caps[k + 1], budget)  # (r m n, s), (s, left r_0)
        cores.append(u.reshape(rank, rows[k], columns[k], -1))
        rank = u.shape[1]
    cores.append(rest.reshape(rank, rows[-1], columns[-1], outer))
    return TensorRing(core.to(dense.dtype) for core in cores)


def from_kronecker(As: Sequence[Tensor] | Tensor, Bs: Sequence[Tensor] | Tensor) -> TensorTrain:
    """Return the two-core train of sum_i kron(A_i, B_i), from r matrices (m_1, n_1) and r matrices (m_2, n_2)."""
    if len(As) == 0 or len(As) != len(Bs):
        raise ValueError(
            f"As and Bs must have one length of at least 1; got {len(As)} and {len(Bs)} matrices: pass pairs."
        )
    for name, matrices in (("As", As), ("Bs", Bs)):
        if not all(isinstance(matrix, Tensor) for matrix in matrices):
            raise TypeError(f"{name} must hold tensors; got {type(matrices[0]).__name__}: convert its entries.")
        shapes = {tuple(matrix.shape) for matrix in matrices}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise ValueError(
                f"All of {name} must be matrices of one shape; got the shapes {sorted(shapes)}: make them equal."
            )
    first = torch.stack(tuple(As), dim=-1)[None]  # r x (m, n) -> (1, m, n, r)
    second = torch.stack(tuple(Bs), dim=0)[..., None]  # r x (m, n) -> (r, m, n, 1)
    return TensorTrain([first, second])


def to_kronecker(tt: TensorTrain) -> tuple[Tensor, Tensor]:
    """Return A (r, m_1, n_1) and B (r, m_2, n_2) with tt = sum_i kron(A_i, B_i), for a train of two cores."""
    if not isinstance(tt, TensorTrain) or len(tt.cores) != 2:
        given = f"a train of {len(tt.cores)} cores" if isinstance(tt, TensorTrain) else type(tt).__name__
        raise ValueError(f"Only a train of two cores is a sum of Kronecker products; got {given}: use two cores.")
    return tt.cores[0][0].permute(2, 0, 1), tt.cores[1][..., 0]


def _interleaved(dense: Tensor, raw_shape: RawShape) -> Tensor:
    """Return dense as (M, N) -> (m_1, n_1, m_2, n_2, ..., m_d, n_d), at least in float32."""
    rows, columns = raw_shape
    if not isinstance(dense, Tensor) or not dense.is_floating_point():
        given = dense.dtype if isinstance(dense, Tensor) else type(dense).__name__
        raise TypeError(f"dense must be a floating-point tensor; got {given}: convert it first.")
    if dense.dim() == 1:
        dense = dense[:, None]
    if dense.dim() != 2 or 0 in dense.shape:
        raise ValueError(f"dense must be a non-empty matrix or vector; got the shape {tuple(dense.shape)}: reshape it.")
    check_product(rows, dense.shape[0], "the number of rows")
    check_product(columns, dense.shape[1], "the number of columns")
    check_finite(dense, "dense")
    d = len(rows)
    order = [axis for k in range(d) for axis in (k, d + k)]
    return dense.to(factoring_dtype(dense.dtype)).reshape(*rows, *columns).permute(order)


def _split_rank(rank: int, outer_cap: int | None, inner_cap: int | None) -> tuple[int, int]:
    """Return the pair (r_0, r_1) within the caps with the largest product <= rank; on ties the most even pair."""
    outer_cap, inner_cap = outer_cap or rank, inner_cap or rank
    pairs = [(outer, min(inner_cap, rank // outer)) for outer in range(1, min(outer_cap, rank) + 1)]
    return max(pairs, key=lambda pair: (pair[0] * pair[1], -abs(pair[0] - pair[1])))
