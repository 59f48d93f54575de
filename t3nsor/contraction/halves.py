"""Contraction through two halves: the chain is cut at a bond; x meets the right half first, then the left one.

    W[(i1, i2), (j1, j2)] = sum_R left[i1, j1, R] right[R, i2, j2]

    P[t, j1, R, i2] = sum_j2 x[t, j1, j2] right[R, i2, j2]             2 T N R M2 operations
    y[t, i1, i2]    = sum_{j1, R} left[i1, j1, R] P[t, j1, R, i2]      2 T M R N1 operations

The two strategies differ in the second product where M2 > 1. `GroupedHalves` makes i2 a part of its rows, (T M2, N1 R),
so that y and g are permuted. `ExpandedHalves` writes the left half out with an identity in i2, (M, N1 R M2), which
takes M2 times the operations and permutes nothing. Where M2 = N1 = 1 both are LoRA's product of two low-rank factors.

768 -> 3072 with d = 3 and rank 8 in the cheapest shape, ((96, 32, 1), (2, 1, 384)): at bond 2 the halves are
left (3072, 2, 8) and right (8, 1, 384), and x (T, 768) becomes P (T, 16), then y (T, 3072).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .chains import Sizes, chain_gradients_work, chain_work, halves, halves_gradients
from .strategy import Gradients, Strategy, Wanted, add, add_product
from .work import Product, Work


@dataclass(frozen=True)
class GroupedHalves(Strategy):
    """Through the halves at a bond, with the pairs (t, i2) as the rows of the second product."""

    bond: int

    @property
    def name(self) -> str:
        return f"halves@{self.bond}"

    def add(self, x: Tensor, cores: Sequence[Tensor], onto: Tensor | None) -> Tensor:
        left, right = halves_as(x.dtype, cores, self.bond)
        (M1, N1, R), M2 = left.shape, right.shape[1]
        between = group(times_right(x, right), M2)  # (T, N1 R M2) -> (T M2, N1 R)
        factor = left.reshape(M1, N1 * R)
        if M2 == 1:
            return add_product(onto, between, factor.T)  # (T, N1 R) x (N1 R, M) -> (T, M)
        y = between @ factor.T  # (T M2, N1 R) x (N1 R, M1) -> (T M2, M1)
        y = y.reshape(-1, M2, M1).transpose(1, 2)  # (T, M1, M2)
        if onto is not None and onto.dim() == 2:
            onto.view(-1, M1, M2).add_(y)
            return onto
        return add(onto, y.reshape(-1, M1 * M2))

    def add_gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], onto: Tensor | None, wanted: Wanted
    ) -> Gradients:
        left, right = halves_as(x.dtype, cores, self.bond)
        (M1, N1, R), M2 = left.shape, right.shape[1]
        rows = group(g, M2)  # (T, M1 M2) -> (T M2, M1)
        flow = rows @ left.reshape(M1, N1 * R)  # (T M2, M1) x (M1, N1 R) -> (T M2, N1 R)
        flow = flow.reshape(-1, M2, N1 * R).transpose(1, 2).reshape(-1, R * M2)  # (T N1, R M2)
        for_input = input_gradient(flow, right, onto).reshape(x.shape) if Wanted.INPUT in wanted else None
        if Wanted.CORES not in wanted:
            return for_input, None
        between = group(times_right(x, right), M2)  # (T, N1 R M2) -> (T M2, N1 R)
        # transposed: with the narrow side to the right it takes twice as long
        for_left = (between.T @ rows).T.to(cores[0].dtype)  # (N1 R, T M2) x (T M2, M1), transposed
        for_right = right_gradient(flow, x, right.shape).to(cores[0].dtype)
        return for_input, halves_gradients(cores, self.bond, for_left.reshape(M1, N1, R), for_right)

    def add_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        M1, N1, M2, N2, R = sizes.split(self.bond)
        work = halves_work(sizes, self.bond) + Work((Product(tokens * N1, N2, R * M2),))
        if M2 == 1:
            return work + Work((Product(tokens, N1 * R, M1, added),))
        copies = (tokens * N1 * R * M2, tokens * M1 * M2)
        return work + Work((Product(tokens * M2, N1 * R, M1),), copies=copies, launches=2)

    def add_gradients_work(self, tokens: int, sizes: Sizes, added: bool, wanted: Wanted) -> Work:
        M1, N1, M2, N2, R = sizes.split(self.bond)
        copied_rows, copied_between = ((tokens * M1 * M2,), (tokens * N1 * R * M2,)) if M2 > 1 else ((), ())
        work = halves_work(sizes, self.bond)
        work += Work((Product(tokens * M2, M1, N1 * R),), copies=copied_rows + copied_between)
        if Wanted.INPUT in wanted:
            work += Work((Product(tokens * N1, R * M2, N2, added),))
        if Wanted.CORES in wanted:
            products = (
                Product(tokens * N1, N2, R * M2),
                Product(M1, tokens * M2, N1 * R),
                Product(R * M2, tokens * N1, N2),
            )
            work += Work(products, copies=copied_between) + halves_gradients_work(sizes, self.bond)
        return work


@dataclass(frozen=True)
class ExpandedHalves(Strategy):
    """Through the halves at a bond, with the left one written out as a low-rank factor (M, N1 R M2)."""

    bond: int

    @property
    def name(self) -> str:
        return f"expanded@{self.bond}"

    def add(self, x: Tensor, cores: Sequence[Tensor], onto: Tensor | None) -> Tensor:
        left, right = halves_as(x.dtype, cores, self.bond)
        factor = expand(left, right.shape[1])
        return add_product(onto, times_right(x, right), factor.T)  # (T, N1 R M2) x (N1 R M2, M) -> (T, M)

    def add_gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], onto: Tensor | None, wanted: Wanted
    ) -> Gradients:
        left, right = halves_as(x.dtype, cores, self.bond)
        (M1, N1, R), M2 = left.shape, right.shape[1]
        flow = (g @ expand(left, M2)).reshape(-1, R * M2)  # (T, M) x (M, N1 R M2) -> (T N1, R M2)
        for_input = input_gradient(flow, right, onto).reshape(x.shape) if Wanted.INPUT in wanted else None
        if Wanted.CORES not in wanted:
            return for_input, None
        # transposed: with the narrow side to the right it takes twice as long
        for_factor = (times_right(x, right).T @ g).T.to(cores[0].dtype)  # (N1 R M2, T) x (T, M), transposed
        for_left = for_factor.reshape(M1, M2, N1, R, M2).diagonal(dim1=1, dim2=4).sum(-1)  # (M1, N1, R)
        for_right = right_gradient(flow, x, right.shape).to(cores[0].dtype)
        return for_input, halves_gradients(cores, self.bond, for_left, for_right)

    def add_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        M1, N1, M2, N2, R = sizes.split(self.bond)
        products = Product(tokens * N1, N2, R * M2), Product(tokens, N1 * R * M2, M1 * M2, added)
        return self._expansion_work(sizes) + Work(products)

    def add_gradients_work(self, tokens: int, sizes: Sizes, added: bool, wanted: Wanted) -> Work:
        M1, N1, M2, N2, R = sizes.split(self.bond)
        work = self._expansion_work(sizes) + Work((Product(tokens, M1 * M2, N1 * R * M2),))
        if Wanted.INPUT in wanted:
            work += Work((Product(tokens * N1, R * M2, N2, added),))
        if Wanted.CORES in wanted:
            products = (
                Product(tokens * N1, N2, R * M2),
                Product(M1 * M2, tokens, N1 * R * M2),
                Product(R * M2, tokens * N1, N2),
            )
            work += Work(products) + halves_gradients_work(sizes, self.bond)
        return work

    def _expansion_work(self, sizes: Sizes) -> Work:
        M1, N1, M2, _, R = sizes.split(self.bond)
        return halves_work(sizes, self.bond) + Work(copies=(M1 * M2 * N1 * R * M2,), launches=3)


def halves_as(dtype: torch.dtype, cores: Sequence[Tensor], bond: int) -> tuple[Tensor, Tensor]:
    """Return left (M1, N1, R) and right (R, M2, N2), multiplied in the dtype of the cores and cast once."""
    left, right = halves(cores, bond)
    return left.to(dtype), right.to(dtype)


def times_right(x: Tensor, right: Tensor) -> Tensor:
    """Return P, (T, N) x (R, M2, N2) -> (T, N1 R M2)."""
    R, M2, N2 = right.shape
    between = x.reshape(-1, N2) @ right.reshape(R * M2, N2).T  # (T N1, N2) x (N2, R M2) -> (T N1, R M2)
    return between.reshape(x.shape[0], -1)


def input_gradient(flow: Tensor, right: Tensor, onto: Tensor | None) -> Tensor:
    """Return g W + onto, (T N1, R M2) x (R, M2, N2) -> (T N1, N2)."""
    R, M2, N2 = right.shape
    onto = None if onto is None else onto.view(-1, N2)
    return add_product(onto, flow, right.reshape(R * M2, N2))


def right_gradient(flow: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient of the right half, (T N1, R M2) and (T, N) -> (R, M2, N2)."""
    return (flow.T @ x.reshape(-1, shape[2])).reshape(shape)  # (R M2, T N1) x (T N1, N2) -> (R M2, N2)


def group(rows: Tensor, M2: int) -> Tensor:
    """Move i2, the last index of the columns, to the rows: (T, K M2) -> (T M2, K)."""
    if M2 == 1:
        return rows
    T, columns = rows.shape
    # for T = 1 that is a view in column order, by which a product takes up to five times as long
    return rows.reshape(T, columns // M2, M2).transpose(1, 2).reshape(T * M2, columns // M2).contiguous()


def expand(left: Tensor, M2: int) -> Tensor:
    """Write the left half out with an identity in i2: (M1, N1, R) -> (M, N1 R M2)."""
    M1, N1, R = left.shape
    identity = torch.eye(M2, dtype=left.dtype, device=left.device)
    return torch.einsum("mjR,iI->mijRI", left, identity).reshape(M1 * M2, N1 * R * M2)


def halves_work(sizes: Sizes, bond: int) -> Work:
    """Return the work of multiplying the cores into the two halves."""
    return chain_work(sizes, 0, bond) + chain_work(sizes, bond, len(sizes.rows))


def halves_gradients_work(sizes: Sizes, bond: int) -> Work:
    """Return the work of the gradients of the cores, given those of the halves."""
    return chain_gradients_work(sizes, 0, bond) + chain_gradients_work(sizes, bond, len(sizes.rows))
