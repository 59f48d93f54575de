"""The interface of a contraction strategy: the product, its gradients, and the work that each of them takes.

    y = x (B + W)^T + b    x (T, N), y (T, M), W (M, N) from cores (r_{k-1}, m_k, n_k, r_k)
                           B (M, N) and b (M,), a frozen weight and a bias, both optional;   g (T, M), the gradient of y

A strategy computes in the dtype of x; what depends on the cores alone is computed in their dtype. It adds its product
to `onto`, which is None, a bias (M,), or a tensor (T, M) that it may overwrite.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Flag, auto

import torch
import torch.nn.functional as F
from torch import Tensor

from .chains import Sizes
from .work import Product, Work


class Wanted(Flag):
    """The gradients that are wanted."""

    INPUT = auto()
    CORES = auto()
    BOTH = INPUT | CORES


Gradients = tuple[Tensor | None, list[Tensor] | None]
"""The gradient of x, (T, N), and those of the cores in the cores' dtype; None for one that is not wanted."""


class Strategy(ABC):
    """One strategy, defined by its class and its fields; strategies with equal fields are equal."""

    name: str

    def __str__(self) -> str:
        return self.name

    def product(self, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """Return x (B + W)^T + b, (T, N) -> (T, M)."""
        return self.add(x, cores, bias if weight is None else F.linear(x, weight.to(x.dtype), bias))

    def gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], weight: Tensor | None, wanted: Wanted
    ) -> Gradients:
        """Return g (B + W) and the gradients of the cores."""
        has_base = weight is not None and Wanted.INPUT in wanted
        onto = g @ weight.to(g.dtype) if has_base else None  # (T, M) x (M, N) -> (T, N)
        return self.add_gradients(x, g, cores, onto, wanted)

    def product_work(self, tokens: int, sizes: Sizes, has_weight: bool) -> Work:
        """Return the work of `product`."""
        return frozen_work(tokens, sizes, has_weight) + self.add_work(tokens, sizes, has_weight)

    def gradient_work(self, tokens: int, sizes: Sizes, has_weight: bool, wanted: Wanted) -> Work:
        """Return the work of `gradients`."""
        has_base = has_weight and Wanted.INPUT in wanted
        frozen = frozen_work(tokens, sizes.transposed, has_base)
        return frozen + self.add_gradients_work(tokens, sizes, has_base, wanted)

    @abstractmethod
    def add(self, x: Tensor, cores: Sequence[Tensor], onto: Tensor | None) -> Tensor:
        """Return x W^T + onto, (T, N) -> (T, M)."""

    @abstractmethod
    def add_gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], onto: Tensor | None, wanted: Wanted
    ) -> Gradients:
        """Return g W + onto and the gradients of the cores."""

    @abstractmethod
    def add_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        """Return the work of `add`, with or without an `onto`."""

    @abstractmethod
    def add_gradients_work(self, tokens: int, sizes: Sizes, added: bool, wanted: Wanted) -> Work:
        """Return the work of `add_gradients`, with or without an `onto`."""


def add(onto: Tensor | None, y: Tensor) -> Tensor:
    """Return onto + y, computed in place if `onto` has as many dimensions as y."""
    if onto is None:
        return y
    return onto.add_(y) if onto.dim() == y.dim() else y + onto


def add_product(onto: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Return onto + left @ right, computed in place if `onto` is a matrix."""
    if onto is None:
        return left @ right
    return onto.addmm_(left, right) if onto.dim() == 2 else torch.addmm(onto, left, right)


def frozen_work(tokens: int, sizes: Sizes, has_weight: bool) -> Work:
    """Return the work of the product with the frozen weight, which every strategy but the fused one needs."""
    M, N = sizes.shape
    return Work((Product(tokens, N, M),)) if has_weight else Work()
