"""The truncated singular value decomposition under an error budget, used by all decompositions and by rounding.

A = U S V^T,   A_q = U[:, :q] S[:q] V[:, :q]^T,   || A - A_q ||_F^2 = s_{q+1}^2 + s_{q+2}^2 + ...
"""

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from .shapes import positive_int


def factoring_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which QR and SVD are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def check_finite(tensor: Tensor, name: str) -> None:
    """Raise ValueError, naming `name`, if a tensor holds a NaN or an infinity, or is on the meta device."""
    if tensor.is_meta:
        raise ValueError(f"{name} must hold values; got one on the meta device: load or initialise the values first.")
    if not tensor.isfinite().all():
        raise ValueError(f"{name} must be finite; got a NaN or an infinity: find out where it comes from.")


def error_budget(rel_tol: float | None, tensor: Tensor, splits: int) -> float | None:
    """Return the error allowed in each of `splits` truncations for rel_tol * || tensor || in total, or None.

    Errors of successive splits are orthogonal and add in squares (Oseledets 2011, theorem 2.2).
    """
    if rel_tol is None:
        return None
    if isinstance(rel_tol, bool) or not isinstance(rel_tol, Real) or not 0 <= rel_tol < 1:
        raise ValueError(f"rel_tol must lie in [0, 1); got {rel_tol!r}: pass e.g. 1e-3, or None for no limit.")
    norm = torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64).item()  # float32 squares may underflow
    return rel_tol * norm / max(splits, 1) ** 0.5


def rank_caps(max_rank: int | Sequence[int] | None, bonds: int) -> list[int | None]:
    """Return one cap per bond for a `max_rank` that is None, an int, or a list of `bonds` ints."""
    if max_rank is None:
        return [None] * bonds
    if not isinstance(max_rank, Sequence):
        return [positive_int(max_rank, "max_rank")] * bonds
    if len(max_rank) != bonds:
        raise ValueError(
            f"A list max_rank must have one entry per bond, {bonds} here; got {list(max_rank)} with {len(max_rank)}: "
            "pass one for each, or one int for all."
        )
    return [positive_int(cap, "Each entry of max_rank") for cap in max_rank]


def truncated_svd(matrix: Tensor, cap: int | None, budget: float | None) -> tuple[Tensor, Tensor]:
    """Return U (a, q) with orthonormal columns and S V^T (q, b) for a matrix (a, b).

    q >= 1 is the smallest rank whose Frobenius error is within `budget` (without a budget min(a, b), including zero
    singular values), or `cap` if that is smaller.
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    keep = len(s)
    if budget is not None:
        errors = s.double().flip(0).square().cumsum(0).sqrt().flip(0)  # errors[q]: the error of rank q
        keep = max(1, int((errors > budget).sum()))
    if cap is not None:
        keep = min(keep, cap)
    return u[:, :keep], s[:keep, None] * vh[:keep]
