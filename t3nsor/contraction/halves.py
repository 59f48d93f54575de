"""Two grouped halves: the chain is cut at a bond, and x meets first the right half of it, then the left one.

    W[(i1, i2), (j1, j2)] = sum_R left[i1, j1, R] right[R, i2, j2]

    P[t, j1, R, i2] = sum_j2 x[t, j1, j2] right[R, i2, j2]             2 T N R M2 operations
    y[t, i1, i2]    = sum_{j1, R} left[i1, j1, R] P[t, j1, R, i2]      2 T M R N1 operations

M2 = N1 = 1 is the product of two low-rank factors, as in LoRA.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .chains import Sizes, chain_gradients_work, chain_work, halves, halves_gradients
from .strategy import Gradients, Strategy, add, add_product
from .work import Product, Work


@dataclass(frozen=True)
class Halves(Strategy):
    """Through the halves left (M1, N1, R) and right (R, M2, N2) at a bond; T N1 x N2, then T x M or T M2 x M1.

    Grouped, the rows of the second product are the pairs (t, i2), so that y and g are permuted where M2 > 1.
    Expanded, the left half is written out with an identity in i2, as (M, N1 R M2), and nothing is permuted.
    """

    bond: int
    expanded: bool = False

    @property
    def name(self) -> str:
        return f"{'expanded' if self.expanded else 'halves'}@{self.bond}"

    def add(self, x: Tensor, cores: Sequence[Tensor], onto: Tensor | None) -> Tensor:
        left, right = (half.to(x.dtype) for half in halves(cores, self.bond))
        return self._through_left(self._through_right(x, right), left, right.shape[1], onto)

    def add_gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], onto: Tensor | None, for_x: bool, for_cores: bool
    ) -> Gradients:
        T = x.shape[0]
        left, right = (half.to(x.dtype) for half in halves(cores, self.bond))
        M1, N1, R = left.shape
        _, M2, N2 = right.shape
        flat = right.reshape(R * M2, N2)
        grouped = g if self.expanded or M2 == 1 else _group(g, M1, M2)  # (T M2, M1)
        wide = _expand(left, M2) if self.expanded else left.reshape(M1, N1 * R)
        flow = self._ungroup(grouped @ wide, T, N1, R, M2)  # (T, M) x (M, N1 R M2) -> (T N1, R M2)
        for_input, gradients = None, None
        if for_x:
            if onto is not None:
                onto = onto.view(T * N1, N2)
            for_input = add_product(onto, flow, flat).reshape(T, N1 * N2)  # (T N1, R M2) x (R M2, N2)
        if for_cores:
            between = self._through_right(x, right)
            # transposed: with the narrow side to the right it takes twice as long
            for_left = (between.T @ grouped).T  # (N1 R, T M2) x (T M2, M1), or (N1 R M2, T) x (T, M)
            for_right = flow.T @ x.reshape(T * N1, N2)  # (R M2, T N1) x (T N1, N2) -> (R M2, N2)
            for_left, for_right = for_left.to(cores[0].dtype), for_right.to(cores[0].dtype)
            if self.expanded:
                for_left = for_left.reshape(M1, M2, N1, R, M2).diagonal(dim1=1, dim2=4).sum(-1)
            for_left, for_right = for_left.reshape(M1, N1, R), for_right.reshape(R, M2, N2)
            gradients = halves_gradients(cores, self.bond, for_left, for_right)
        return for_input, gradients

    def add_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        _, N1, M2, N2, R = sizes.split(self.bond)
        right = Product(tokens * N1, N2, R * M2)
        return self._build(sizes) + Work((right,)) + self._left_work(tokens, sizes, added)

    def add_gradients_work(self, tokens: int, sizes: Sizes, added: bool, for_x: bool, for_cores: bool) -> Work:
        M1, N1, M2, N2, R = sizes.split(self.bond)
        work = self._build(sizes)
        grouped = not self.expanded and M2 > 1
        inner = N1 * R * (M2 if self.expanded else 1)
        rows, columns = (tokens * M2, M1) if grouped else (tokens, M1 * M2)
        work += Work(
            (Product(rows, columns, inner),), copies=(tokens * M1 * M2, tokens * N1 * R * M2) if grouped else ()
        )
        if for_x:
            work += Work((Product(tokens * N1, R * M2, N2, added),))
        if for_cores:
            products = (
                Product(tokens * N1, N2, R * M2),
                Product(columns, rows, inner),
                Product(R * M2, tokens * N1, N2),
            )
            back = chain_gradients_work(sizes, 0, self.bond) + chain_gradients_work(sizes, self.bond, len(sizes.rows))
            work += Work(products, copies=(tokens * N1 * R * M2,) if grouped else ()) + back
        return work

    def _build(self, sizes: Sizes) -> Work:
        M1, N1, M2, _, R = sizes.split(self.bond)
        work = chain_work(sizes, 0, self.bond) + chain_work(sizes, self.bond, len(sizes.rows))
        return work + Work(copies=(M1 * M2 * N1 * R * M2,), launches=3) if self.expanded else work

    def _left_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        M1, N1, M2, _, R = sizes.split(self.bond)
        if self.expanded or M2 == 1:
            return Work((Product(tokens, N1 * R * M2, M1 * M2, added),))
        copies = (tokens * N1 * R * M2, tokens * M1 * M2)
        return Work((Product(tokens * M2, N1 * R, M1),), copies=copies, launches=2)

    def _through_right(self, x: Tensor, right: Tensor) -> Tensor:
        """(T, N) -> (T, N1 R M2), or grouped (T M2, N1 R)."""
        R, M2, N2 = right.shape
        T = x.shape[0]
        between = x.reshape(-1, N2) @ right.reshape(R * M2, N2).T  # (T N1, N2) x (N2, R M2) -> (T N1, R M2)
        if self.expanded or M2 == 1:
            return between.reshape(T, -1)
        return between.reshape(T, -1, M2).transpose(1, 2).reshape(T * M2, -1)

    def _through_left(self, between: Tensor, left: Tensor, M2: int, onto: Tensor | None) -> Tensor:
        M1, N1, R = left.shape
        if self.expanded or M2 == 1:
            wide = _expand(left, M2) if self.expanded else left.reshape(M1, N1 * R)
            return add_product(onto, between, wide.T)  # (T, N1 R M2) x (N1 R M2, M) -> (T, M)
        y = between @ left.reshape(M1, N1 * R).T  # (T M2, N1 R) x (N1 R, M1) -> (T M2, M1)
        y = y.reshape(-1, M2, M1).transpose(1, 2)  # (T, M1, M2)
        if onto is not None and onto.dim() == 2:
            onto.view(-1, M1, M2).add_(y)
            return onto
        return add(onto, y.reshape(-1, M1 * M2))

    def _ungroup(self, flow: Tensor, T: int, N1: int, R: int, M2: int) -> Tensor:
        """(T, N1 R M2) or grouped (T M2, N1 R) -> (T N1, R M2)."""
        if not self.expanded and M2 > 1:
            flow = flow.reshape(T, M2, N1 * R).transpose(1, 2)
        return flow.reshape(T * N1, R * M2)


def _expand(left: Tensor, M2: int) -> Tensor:
    """(M1, N1, R) -> (M, N1 R M2), the left half with an identity in i2."""
    M1, N1, R = left.shape
    identity = torch.eye(M2, dtype=left.dtype, device=left.device)
    return torch.einsum("mjR,iI->mijRI", left, identity).reshape(M1 * M2, N1 * R * M2)


def _group(y: Tensor, M1: int, M2: int) -> Tensor:
    """(T, M1 M2) -> (T M2, M1)."""
    return y.reshape(-1, M1, M2).transpose(1, 2).reshape(-1, M1)
