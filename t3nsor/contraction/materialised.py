"""Through a dense matrix: that of the cores, or the frozen weight plus it, which one product then serves."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .chains import Sizes, chain_gradients_work, chain_work, dense, dense_gradients
from .strategy import Gradients, Strategy, add_product
from .work import Product, Work


@dataclass(frozen=True)
class Materialised(Strategy):
    """Through the dense matrix; its gradient is the product of full fine-tuning, contracted with the cores."""

    name = "materialised"

    def add(self, x: Tensor, cores: Sequence[Tensor], onto: Tensor | None) -> Tensor:
        return add_product(onto, x, dense(cores).to(x.dtype).T)  # (T, N) x (N, M) -> (T, M)

    def add_gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], onto: Tensor | None, for_x: bool, for_cores: bool
    ) -> Gradients:
        for_input, gradients = None, None
        if for_x:
            for_input = add_product(onto, g, dense(cores).to(x.dtype))  # (T, M) x (M, N) -> (T, N)
        if for_cores:
            whole = g.T @ x  # (M, T) x (T, N) -> (M, N)
            gradients = dense_gradients(cores, whole.to(cores[0].dtype))
        return for_input, gradients

    def add_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        M, N = sizes.shape
        return dense_work(sizes, added=False) + Work((Product(tokens, N, M, added),))

    def add_gradients_work(self, tokens: int, sizes: Sizes, added: bool, for_x: bool, for_cores: bool) -> Work:
        M, N = sizes.shape
        work = self.add_work(tokens, sizes.transposed, added) if for_x else Work()
        if for_cores:
            work += Work((Product(M, tokens, N),)) + dense_gradients_work(sizes)
        return work


@dataclass(frozen=True)
class Fused(Materialised):
    """Through the frozen weight plus the dense matrix. The gradients of the cores have nothing to fuse with."""

    name = "fused"

    def product(self, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if weight is None:
            return super().product(x, cores, weight, bias)
        return F.linear(x, fused_weight(cores, weight, x), bias)  # (T, N) x (N, M) -> (T, M)

    def gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], weight: Tensor | None, for_x: bool, for_cores: bool
    ) -> Gradients:
        if weight is None or not for_x:
            return super().gradients(x, g, cores, weight, for_x, for_cores)
        _, gradients = super().gradients(x, g, cores, None, False, for_cores)
        return g @ fused_weight(cores, weight, x), gradients  # (T, M) x (M, N) -> (T, N)

    def product_work(self, tokens: int, sizes: Sizes, has_weight: bool) -> Work:
        if not has_weight:
            return super().product_work(tokens, sizes, has_weight)
        M, N = sizes.shape
        return dense_work(sizes, added=True) + Work((Product(tokens, N, M),))

    def gradient_work(self, tokens: int, sizes: Sizes, has_weight: bool, for_x: bool, for_cores: bool) -> Work:
        if not (has_weight and for_x):
            return super().gradient_work(tokens, sizes, has_weight, for_x, for_cores)
        rest = super().gradient_work(tokens, sizes, False, False, for_cores)
        return self.product_work(tokens, sizes.transposed, has_weight) + rest


def fused_weight(cores: Sequence[Tensor], weight: Tensor, x: Tensor) -> Tensor:
    """The frozen weight plus the dense matrix, summed in the wider of their dtypes and cast once to that of x."""
    wide = torch.promote_types(weight.dtype, cores[0].dtype)
    return dense([core.to(wide) for core in cores], weight.to(wide)).to(x.dtype)


def dense_work(sizes: Sizes, added: bool) -> Work:
    """That of building the dense matrix, added onto a weight or not."""
    M, N = sizes.shape
    bond = sizes.best_bond()
    if bond is None:
        return Work(copies=(M * N,) * (2 if added else 1), launches=2)
    M1, N1, M2, N2, R = sizes.split(bond)
    in_order = N1 == 1 or M2 == 1
    build = chain_work(sizes, 0, bond) + chain_work(sizes, bond, len(sizes.rows))
    # what was multiplied is put in order, or the weight is added to it, which moves as much as a sum onto a copy
    copies = (M * N,) if added or not in_order else ()
    return build + Work((Product(M1 * N1, R, M2 * N2, added and in_order),), copies=copies, launches=1)


def dense_gradients_work(sizes: Sizes) -> Work:
    """That of contracting the gradient of the dense matrix with the cores."""
    M, N = sizes.shape
    bond = sizes.best_bond()
    if bond is None:
        return Work(copies=(M * N,), launches=1)
    M1, N1, M2, N2, R = sizes.split(bond)
    products = (Product(M1 * N1, M2 * N2, R), Product(R, M1 * N1, M2 * N2))
    work = Work(products, copies=() if N1 == 1 or M2 == 1 else (M * N,), launches=1)
    for half in ((0, bond), (bond, len(sizes.rows))):
        work += chain_work(sizes, *half) + chain_gradients_work(sizes, *half)
    return work
