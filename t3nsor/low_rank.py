"""Between tensor networks and products of two factors, W = B A, as those of LoRA (Hu et al. 2021, arXiv:2106.09685).

    B (out, r), A (r, in)     as a train: G_1 = A^T (1, 1, in, r), G_2 = B^T (r, out, 1, 1)

Cut at a bond with all in factors on one side of it and all out factors on the other, a train is such a product already,
of the rank of the bond. Where a core carries both sides, the rank of W is not that of any bond, up to min(out, in).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .contraction.chains import chain
from .tensor_network import TensorNetwork
from .tensor_train import TensorTrain
from .truncation import check_finite, factoring_dtype


def from_low_rank(B: Tensor, A: Tensor) -> TensorTrain:
    """The two-core train of B A, which holds their numbers, from B (out, r) and A (r, in) of one floating dtype.

    Raises:
        TypeError: a factor is no floating-point tensor, or their dtypes differ.
        ValueError: a factor is no matrix, their inner sizes or their devices differ, or there is a zero in a shape.
    """
    for name, factor in (("B", B), ("A", A)):
        if not isinstance(factor, Tensor):
            raise TypeError(f"{name} must be a tensor, but {type(factor).__name__} was given; convert it first.")
        if factor.dim() != 2:
            raise ValueError(f"{name} must be a matrix, but its shape is {tuple(factor.shape)}; reshape it.")
    if B.shape[1] != A.shape[0]:
        raise ValueError(
            "The factors must meet in one rank, B (out, r) and A (r, in), but their shapes are "
            f"{tuple(B.shape)} and {tuple(A.shape)}; transpose one, or give them in the other order."
        )
    return TensorTrain([A.mT[None, None], B.mT[:, :, None, None]])  # (1, 1, in, r), (r, out, 1, 1)


@torch.no_grad()
def to_low_rank(network: TensorNetwork) -> tuple[Tensor, Tensor]:
    """B (out, q) and A (q, in) with B A = W, q its numerical rank, at least 1; the singular values are in equal parts.

    Of the zero matrix B is zero and A a row of norm 1, so that B has a gradient and the product can learn.

    Singular values count that exceed the largest one times machine precision times max(out, in). They are found from
    the cores, and the dense matrix is never built, where a bond has all in factors on one side and all out factors on
    the other; else from the dense matrix. Half precision is factored in float32.

    Raises:
        ValueError: a core holds a NaN or an infinity, or nothing (meta device).
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
    """The interior bond of least rank between all in factors and all out factors; None where there is none."""
    rows, columns = train.raw_shape
    separating = [
        bond
        for bond in range(1, len(rows))
        if {*rows[:bond], *columns[bond:]} == {1} or {*columns[:bond], *rows[bond:]} == {1}
    ]
    return min(separating, key=lambda bond: train.ranks[bond], default=None)


def _factors_at(cores: Sequence[Tensor], bond: int) -> tuple[Tensor, Tensor]:
    """B (out, r) and A (r, in) from the two sides of a bond that separates out and in."""
    left, right = chain(cores[:bond]), chain(cores[bond:])  # (1, M1, N1, r), (r, M2, N2, 1)
    if left.shape[1] == 1 and right.shape[2] == 1:
        return right[:, :, 0, 0].mT, left[0, 0].mT  # (r, out) -> (out, r), (in, r) -> (r, in)
    return left[0, :, 0], right[:, 0, :, 0]  # (out, r), (r, in)
