"""Products of neighbouring cores, the dense matrix of a chain, and the gradients of the cores.

    chain(G_i .. G_k)   (r_{i-1}, M, N, r_k)                   M = m_i ... m_k, N = n_i ... n_k, both in C order
    halves at bond k    left (M1, N1, R), right (R, M2, N2)    W[(i1, i2), (j1, j2)] = sum_R left[i1, j1] right[i2, j2]
    dense               W (M, N)                               M = M1 M2, N = N1 N2

If all columns are left of a bond and all rows right of it, W is a product of two low-rank factors, in either order: the
right one is then used as the left half, and M2 = N1 = 1. A ring closes through the outer rank c = r_0 = r_d, over which
the two halves are contracted too, so R = c r_k; in a train c = 1.

768 -> 3072 with d = 3 and rank 8, ((12, 16, 16), (8, 8, 12)): cores (1, 12, 8, 8), (8, 16, 8, 8), (8, 16, 12, 1); at
bond 1 the halves are left (12, 8, 8) and right (8, 256, 96), at bond 2 left (192, 64, 8) and right (8, 16, 12).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .work import Product, Work


class Sizes(NamedTuple):
    """The sizes that the cost of a contraction depends on: m_1..m_d, n_1..n_d, and the ranks r_0..r_d."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, cores: Sequence[Tensor]) -> "Sizes":
        """Return the sizes of a chain of cores."""
        return cls.of_shapes([core.shape for core in cores])

    @classmethod
    def of_shapes(cls, shapes: Sequence[Sequence[int]]) -> "Sizes":
        """Return the sizes of a chain of cores of these shapes (r_{k-1}, m_k, n_k, r_k)."""
        before, rows, columns, after = zip(*shapes, strict=True)
        return cls(rows, columns, (before[0], *after))

    @property
    def transposed(self) -> "Sizes":
        """The sizes of the transposed matrix."""
        return Sizes(self.columns, self.rows, self.ranks)

    @property
    def shape(self) -> tuple[int, int]:
        """(M, N)."""
        return _product(self.rows), _product(self.columns)

    def split(self, bond: int) -> tuple[int, int, int, int, int]:
        """Return (M1, N1, M2, N2, R) of the halves at a bond."""
        M1, N1 = _product(self.rows[:bond]), _product(self.columns[:bond])
        M, N = self.shape
        R = self.ranks[0] * self.ranks[bond]
        return (M, 1, 1, N, R) if (M1, N1) == (1, N) else (M1, N1, M // M1, N // N1, R)

    def best_bond(self) -> int | None:
        """Return the interior bond at which the dense matrix is built most cheaply; None for a single core.

        If N1 = 1 or M2 = 1, the product of the halves is already in the order of the matrix and is not permuted.
        """
        costs = [self._cost_of_dense(bond) for bond in range(1, len(self.rows))]
        return costs.index(min(costs)) + 1 if costs else None

    def _cost_of_dense(self, bond: int) -> int:
        M1, N1, M2, N2, R = self.split(bond)
        permuted = 0 if N1 == 1 or M2 == 1 else 32
        return M1 * N1 * M2 * N2 * (R + permuted) + 32 * R * (M1 * N1 + M2 * N2)


def _product(factors: Sequence[int]) -> int:
    product = 1
    for factor in factors:
        product *= factor
    return product


def transpose(cores: Sequence[Tensor]) -> list[Tensor]:
    """Return the cores of the transposed matrix."""
    return [core.transpose(1, 2) for core in cores]


def chain(cores: Sequence[Tensor]) -> Tensor:
    """Return the product of neighbouring cores, (r_{i-1}, M, N, r_k)."""
    product = cores[0]
    for core in cores[1:]:
        r, M, N, s = product.shape
        _, m, n, t = core.shape
        product = product.reshape(r * M * N, s) @ core.reshape(s, m * n * t)  # (r M N, s) x (s, m n t)
        product = product.reshape(r, M, N, m, n, t).transpose(2, 3).reshape(r, M * m, N * n, t)
    return product


def chain_work(sizes: Sizes, first: int, last: int) -> Work:
    """Return the work of `chain` for the cores from `first` up to, but not including, `last`."""
    work, size = Work(), sizes.ranks[first] * sizes.rows[first] * sizes.columns[first]
    for k in range(first + 1, last):
        added = sizes.rows[k] * sizes.columns[k] * sizes.ranks[k + 1]
        work += Work((Product(size, sizes.ranks[k], added),), copies=(size * added,), launches=1)
        size *= sizes.rows[k] * sizes.columns[k]
    return work


def chain_gradients(cores: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """Return the gradients of the cores, given that of their chain (r_{i-1}, M, N, r_k), by recursive halving."""
    if len(cores) == 1:
        return [gradient]
    middle = len(cores) // 2
    left, right = chain(cores[:middle]), chain(cores[middle:])
    r, M, N, s = left.shape
    _, m, n, t = right.shape
    whole = gradient.reshape(r, M, m, N, n, t).transpose(2, 3).reshape(r * M * N, m * n * t)
    for_left = whole @ right.reshape(s, -1).T  # (r M N, m n t) x (m n t, s) -> (r M N, s)
    for_right = left.reshape(-1, s).T @ whole  # (s, r M N) x (r M N, m n t) -> (s, m n t)
    return [
        *chain_gradients(cores[:middle], for_left.reshape(left.shape)),
        *chain_gradients(cores[middle:], for_right.reshape(right.shape)),
    ]


def chain_gradients_work(sizes: Sizes, first: int, last: int) -> Work:
    """Return the work of `chain_gradients` for the cores from `first` up to, but not including, `last`."""
    if last - first == 1:
        return Work()
    middle = first + (last - first) // 2
    left = sizes.ranks[first] * _product(sizes.rows[first:middle]) * _product(sizes.columns[first:middle])
    right = sizes.ranks[last] * _product(sizes.rows[middle:last]) * _product(sizes.columns[middle:last])
    bond = sizes.ranks[middle]
    work = Work((Product(left, right, bond), Product(bond, left, right)), copies=(left * right,), launches=1)
    for half in ((first, middle), (middle, last)):
        work += chain_work(sizes, *half) + chain_gradients_work(sizes, *half)
    return work


def halves(cores: Sequence[Tensor], bond: int) -> tuple[Tensor, Tensor]:
    """Return left (M1, N1, R) and right (R, M2, N2) of a chain cut at an interior bond."""
    left, right = chain(cores[:bond]), chain(cores[bond:])  # (c, M1, N1, r), (r, M2, N2, c)
    c, M1, N1, r = left.shape
    _, M2, N2, _ = right.shape
    if M1 == N2 == 1:  # all columns are left of the bond and all rows right of it
        out_side, in_side = right.permute(1, 2, 3, 0), left.permute(0, 3, 1, 2)  # (M, 1, c, r), (c, r, 1, N)
        return out_side.reshape(M2, 1, c * r), in_side.reshape(c * r, 1, N1)
    if c == 1:
        return left[0], right[..., 0]
    return left.permute(1, 2, 0, 3).reshape(M1, N1, c * r), right.permute(3, 0, 1, 2).reshape(c * r, M2, N2)


def halves_gradients(cores: Sequence[Tensor], bond: int, for_left: Tensor, for_right: Tensor) -> list[Tensor]:
    """Return the gradients of the cores, given those of the halves, (M1, N1, R) and (R, M2, N2)."""
    c, r = cores[0].shape[0], cores[bond].shape[0]
    M1, N1, _ = for_left.shape
    _, M2, N2 = for_right.shape
    columns_first = all(core.shape[1] == 1 for core in cores[:bond]) and all(
        core.shape[2] == 1 for core in cores[bond:]
    )
    if columns_first:
        out_side = for_left.reshape(M1, 1, c, r).permute(3, 0, 1, 2)  # (r, M, 1, c)
        in_side = for_right.reshape(c, r, 1, N2).permute(0, 2, 3, 1)  # (c, 1, N, r)
        return [*chain_gradients(cores[:bond], in_side), *chain_gradients(cores[bond:], out_side)]
    for_left = for_left.reshape(M1, N1, c, r).permute(2, 0, 1, 3)  # (c, M1, N1, r)
    for_right = for_right.reshape(c, r, M2, N2).permute(1, 2, 3, 0)  # (r, M2, N2, c)
    return [*chain_gradients(cores[:bond], for_left), *chain_gradients(cores[bond:], for_right)]


def dense(cores: Sequence[Tensor], base: Tensor | None = None) -> Tensor:
    """Return the matrix (M, N) of a chain, plus `base` (M, N) of the cores' dtype if given, in one pass."""
    sizes = Sizes.of(cores)
    bond = sizes.best_bond()
    if bond is None:
        matrix = cores[0].diagonal(dim1=0, dim2=3).sum(-1)  # (c, M, N, c) -> (M, N)
        return matrix if base is None else base + matrix
    M1, N1, M2, N2, R = sizes.split(bond)
    left, right = halves(cores, bond)
    left, right = left.reshape(M1 * N1, R), right.reshape(R, M2 * N2)
    if N1 == 1 or M2 == 1:  # (M1 N1, R) x (R, M2 N2) is in the order of the matrix
        matrix = (left @ right).reshape(M1 * M2, N1 * N2)
        return matrix if base is None else matrix.add_(base)  # addmm would copy the base first
    matrix = (left @ right).reshape(M1, N1, M2, N2).transpose(1, 2)  # (M1, M2, N1, N2)
    if base is None:
        return matrix.reshape(M1 * M2, N1 * N2)
    return (base.reshape(M1, M2, N1, N2) + matrix).reshape(M1 * M2, N1 * N2)


def dense_gradients(cores: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """Return the gradients of the cores, given that of the matrix (M, N)."""
    sizes = Sizes.of(cores)
    bond = sizes.best_bond()
    if bond is None:
        closing = torch.eye(sizes.ranks[0], dtype=gradient.dtype, device=gradient.device)
        return [torch.einsum("cr,mn->cmnr", closing, gradient)]  # (c, r) x (M, N) -> (c, M, N, r)
    M1, N1, M2, N2, R = sizes.split(bond)
    left, right = halves(cores, bond)
    whole = gradient.reshape(M1, M2, N1, N2).transpose(1, 2).reshape(M1 * N1, M2 * N2)
    for_left = whole @ right.reshape(R, M2 * N2).T  # (M1 N1, M2 N2) x (M2 N2, R) -> (M1 N1, R)
    for_right = left.reshape(M1 * N1, R).T @ whole  # (R, M1 N1) x (M1 N1, M2 N2) -> (R, M2 N2)
    return halves_gradients(cores, bond, for_left.reshape(M1, N1, R), for_right.reshape(R, M2, N2))
