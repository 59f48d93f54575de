"""Conversions between tensor networks and low-rank products W = B A, as in LoRA (Hu et al. 2021, arXiv:2106.09685).

    B (out, r), A (r, in)     as a train: G_1 = A^T (1, 1, in, r), G_2 = B^T (r, out, 1, 1)

A train that has all in factors on one side of a bond and all out factors on the other is already such a product, of the
rank of the bond. If a core has factors of both, the matrix rank of W is not that of any bond, but up to min(out, in).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .contraction.chains import chain
from .tensor_network import TensorNetwork
from .tensor_train import TensorTrain
from .truncation import check_finite, factoring_dtype


def from_low_rank(B: Tensor, A: Tensor) -> TensorTrain:
    """Return the two-core train of B A, a view of B (out, r) and A (r, in), which have one floating-point dtype.

    Raises:
        TypeError: a factor is not a floating-point tensor, or their dtypes differ.
        ValueError: a factor is not a matrix, their inner sizes or devices differ, or a shape contains a zero.
    """
    for name, factor in (("B", B), ("A", A)):
        if not isinstance(factor, Tensor):
            raise TypeError(f"{name} must be a tensor; got {type(factor).__name__}: convert it first.")
        if factor.dim() != 2:
            raise ValueError(f"{name} must be a matrix; got the shape {tuple(factor.shape)}: reshape it.")
    if B.shape[1] != A.shape[0]:
        raise ValueError(
            "The factors must have one inner size, B (out, r) and A (r, in); got the shapes "
            f"{tuple(B.shape)} and {tuple(A.shape)}: transpose one, or swap them."
        )
    return TensorTrain([A.mT[None, None], B.mT[:, :, None, None]])  # (1, 1, in, r), (r, out, 1, 1)


@torch.no_grad()
def to_low_rank(network: TensorNetwork) -> tuple[Tensor, Tensor]:
    """Return B (out, q) and A (q, in) with B A = W, q >= 1 its numerical rank; singular values are split evenly.

    For the zero matrix B is zero and A a row of norm 1, so that B has a gradient.

    The numerical rank counts the singular values larger than the largest one times machine precision times
    max(out, in). They are computed from the cores, without building the dense matrix, if a bond has all in factors on
    one side and all out factors on the other; otherwise from the dense matrix. Half precision is factored in float32.

    Raises:
        ValueError: a core holds a NaN or an infinity, or is on the meta device.
    """
    for core in network.cores:
        check_finite(core, "Each core")
    train = network.to_train().to(factoring_dtype(network.dtype))
    bond = _separating_bond(train)
    if bond is None:
        u, s, vh = torch.linalg.svd(train.full(), full_matrices=False)
    else:
        B, A = _factors_at(train.cores, bond)
        (left, over), (right, under) = torch.linalg.qr(B), torch.linalg.qr(A.mT)  # (out, q), (q, r); (in, p), (p, r)
        u, s, vh = torch.linalg.svd(over @ under.mT, full_matrices=False)  # (q, r) x (r, p)
        u, vh = left @ u, vh @ right.mT
    rank = int((s > s[0] * torch.finfo(s.dtype).eps * max(train.shape)).sum())
    if rank == 0:
        return torch.zeros_like(u[:, :1], dtype=network.dtype), vh[:1].to(network.dtype)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).to(network.dtype), (root[:, None] * vh[:rank]).to(network.dtype)


def _separating_bond(train: TensorTrain) -> int | None:
    """Return the interior bond of least rank between all in factors and all out factors, or None."""
    rows, columns = train.raw_shape
    separating = [
        bond
        for bond in range(1, len(rows))
        if {*rows[:bond], *columns[bond:]} == {1} or {*columns[:bond], *rows[bond:]} == {1}
    ]
    return min(separating, key=lambda bond: train.ranks[bond], default=None)


def _factors_at(cores: Sequence[Tensor], bond: int) -> tuple[Tensor, Tensor]:
    """Return B (out, r) and A (r, in), the two sides of a bond that separates out and in."""
    left, right = chain(cores[:bond]), chain(cores[bond:])  # (1, M1, N1, r), (r, M2, N2, 1)
    if left.shape[1] == 1 and right.shape[2] == 1:
        return right[:, :, 0, 0].mT, left[0, 0].mT  # (r, out) -> (out, r), (in, r) -> (r, in)
    return left[0, :, 0], right[:, 0, :, 0]  # (out, r), (r, in)
