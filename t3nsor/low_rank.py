"""Conversions between tensor networks and low-rank products W = B A, as in LoRA (Hu et al. 2021, arXiv:2106.09685).

    B (out, r), A (r, in)     as a train: G_1 = A^T (1, 1, in, r), G_2 = B^T (r, out, 1, 1)

A train is such a product at each of its bonds. For each index b = 1..r of the bond both sides are matrices, L_b
(M1, N1) and R_b (M2, N2), and W is the sum of their Kronecker products:

    W = sum_b L_b ⊗ R_b = B A,    inner index (c, b, d) of size q = min(M1, N1) r min(M2, N2)

    N1 <= M1    c = n1: L_b in B, the identity in A            M1 < N1    c = m1: the identity in B, L_b in A

and likewise R_b with d. So q is r if all in factors are on one side and all out factors on the other. The default
768 -> 3072 of rank 8, cores (1, 96, 2, 8), (8, 32, 1, 8), (8, 1, 384, 1), has q = 2 · 8 = 16 at its second bond.
"""

import math
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
    max(out, in). They are computed from the factors of the bond of least q, above, without building the dense matrix if
    q <= min(out, in). Half precision is factored in float32.

    Raises:
        ValueError: a core holds a NaN or an infinity, or is on the meta device.
    """
    for core in network.cores:
        check_finite(core, "Each core")
    train = network.to_train().to(factoring_dtype(network.dtype))
    bond = min(range(1, len(train.cores)), key=lambda bond: _inner_size(train, bond), default=None)
    if bond is None or _inner_size(train, bond) > min(train.shape):
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


def _inner_size(train: TensorTrain, bond: int) -> int:
    """Return q of a bond."""
    rows, columns = train.raw_shape
    sides = slice(bond), slice(bond, None)
    return train.ranks[bond] * math.prod(min(math.prod(rows[side]), math.prod(columns[side])) for side in sides)


def _factors_at(cores: Sequence[Tensor], bond: int) -> tuple[Tensor, Tensor]:
    """Return B (out, q) and A (q, in) of a bond."""
    left, right = chain(cores[:bond])[0], chain(cores[bond:])[..., 0].permute(1, 2, 0)  # L, R (M, N, r)
    (B1, A1), (B2, A2) = _split(left), _split(right)
    B = torch.einsum("mcb,pdb->mpcbd", B1, B2)  # (M1, c, r) x (M2, d, r) -> (M1, M2, c, r, d)
    A = torch.einsum("cnb,dqb->cbdnq", A1, A2)  # (c, N1, r) x (d, N2, r) -> (c, r, d, N1, N2)
    return B.flatten(2).flatten(0, 1), A.flatten(3).flatten(0, 2)


def _split(side: Tensor) -> tuple[Tensor, Tensor]:
    """Return (M, c, r) and (c, N, r), c = min(M, N), whose product for each b is (M, N, r)."""
    rows, columns, rank = side.shape
    identity = torch.eye(min(rows, columns), dtype=side.dtype, device=side.device)[..., None].expand(-1, -1, rank)
    return (side, identity) if columns <= rows else (identity, side)
