"""Contraction through a dense matrix: the one of the cores, or its sum with the frozen weight, for one product."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .chains import Sizes, chain_gradients_work, chain_work, dense, dense_gradients
from .strategy import Gradients, Strategy, Wanted, add_product
from .work import Product, Work


@dataclass(frozen=True)
class Materialised(Strategy):
    """Through the dense matrix; its gradient is computed as in full fine-tuning and contracted with the cores."""

    name = "materialised"

    def add(self, x: Tensor, cores: Sequence[Tensor], onto: Tensor | None) -> Tensor:
        return add_product(onto, x, dense(cores).to(x.dtype).T)  # (T, N) x (N, M) -> (T, M)

    def add_gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], onto: Tensor | None, wanted: Wanted
    ) -> Gradients:
        for_input, gradients = None, None
        if Wanted.INPUT in wanted:
            for_input = add_product(onto, g, dense(cores).to(x.dtype))  # (T, M) x (M, N) -> (T, N)
        if Wanted.CORES in wanted:
            whole = g.T @ x  # (M, T) x (T, N) -> (M, N)
            gradients = dense_gradients(cores, whole.to(cores[0].dtype))
        return for_input, gradients

    def add_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        M, N = sizes.shape
        return dense_work(sizes, added=False) + Work((Product(tokens, N, M, added),))

    def add_gradients_work(self, tokens: int, sizes: Sizes, added: bool, wanted: Wanted) -> Work:
        M, N = sizes.shape
        work = self.add_work(tokens, sizes.transposed, added) if Wanted.INPUT in wanted else Work()
        if Wanted.CORES in wanted:
            work += Work((Product(M, tokens, N),)) + dense_gradients_work(sizes)
        return work


@dataclass(frozen=True)
class Fused(Materialised):
    """Through the frozen weight plus the dense matrix. For the gradients of the cores it is `Materialised`."""

    name = "fused"

    def product(self, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
        if weight is None:
            return super().product(x, cores, weight, bias)
        return F.linear(x, fused_weight(cores, weight, x), bias)  # (T, N) x (N, M) -> (T, M)

    def gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], weight: Tensor | None, wanted: Wanted
    ) -> Gradients:
        if weight is None or Wanted.INPUT not in wanted:
            return super().gradients(x, g, cores, weight, wanted)
        _, gradients = super().gradients(x, g, cores, None, wanted & Wanted.CORES)
        return g @ fused_weight(cores, weight, x), gradients  # (T, M) x (M, N) -> (T, N)

    def product_work(self, tokens: int, sizes: Sizes, has_weight: bool) -> Work:
        if not has_weight:
            return super().product_work(tokens, sizes, has_weight)
        M, N = sizes.shape
        return dense_work(sizes, added=True) + Work((Product(tokens, N, M),))

    def gradient_work(self, tokens: int, sizes: Sizes, has_weight: bool, wanted: Wanted) -> Work:
        if not has_weight or Wanted.INPUT not in wanted:
            return super().gradient_work(tokens, sizes, has_weight, wanted)
        rest = super().gradient_work(tokens, sizes, False, wanted & Wanted.CORES)
        return self.product_work(tokens, sizes.transposed, has_weight) + rest


def fused_weight(cores: Sequence[Tensor], weight: Tensor, x: Tensor) -> Tensor:
    """Return the frozen weight plus the dense matrix, summed in the wider of their dtypes, in the dtype of x."""
    wide = torch.promote_types(weight.dtype, cores[0].dtype)
    return dense([core.to(wide) for core in cores], weight.to(wide)).to(x.dtype)


def dense_work(sizes: Sizes, added: bool) -> Work:
    """Return the work of building the dense matrix, added to a weight or not."""
    M, N = sizes.shape
    bond = sizes.best_bond()
    if bond is None:
        return Work(copies=(M * N,) * (2 if added else 1), launches=2)
    M1, N1, M2, N2, R = sizes.split(bond)
    in_order = N1 == 1 or M2 == 1
    build = chain_work(sizes, 0, bond) + chain_work(sizes, bond, len(sizes.rows))
    # permuting the product, or adding the weight to it, moves as many entries as one copy
    copies = (M * N,) if added or not in_order else ()
    return build + Work((Product(M1 * N1, R, M2 * N2, added and in_order),), copies=copies, launches=1)


def dense_gradients_work(sizes: Sizes) -> Work:
    """Return the work of contracting the gradient of the dense matrix with the cores."""
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
