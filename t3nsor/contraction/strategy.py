"""What a way to multiply with a chain of cores has to offer: the product, the gradients, and the work of both.

    y = x (B + W)^T + b    x (T, N), y (T, M), W (M, N) from cores (r_{k-1}, m_k, n_k, r_k)
                           B (M, N) and b (M,), a frozen weight and a bias, or not there;   g (T, M), the gradient of y

A way computes in the dtype of x, and what depends on the cores alone in theirs. It adds its product onto what is there:
`onto` is None, a bias (M,), or a tensor (T, M) that it may overwrite.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .chains import Sizes
from .work import Product, Work

Gradients = tuple[Tensor | None, list[Tensor] | None]
"""That of x, (T, N), and those of the cores in their dtype; None for what was not asked for."""


class Strategy(ABC):
    """One way; its name and its fields say all."""

    name: str

    def __str__(self) -> str:
        return self.name

    def product(self, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """x (B + W)^T + b, (T, N) -> (T, M)."""
        return self.add(x, cores, bias if weight is None else F.linear(x, weight.to(x.dtype), bias))

    def gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], weight: Tensor | None, for_x: bool, for_cores: bool
    ) -> Gradients:
        """(g (B + W), the gradients of the cores)."""
        onto = g @ weight.to(g.dtype) if for_x and weight is not None else None  # (T, M) x (M, N) -> (T, N)
        return self.add_gradients(x, g, cores, onto, for_x, for_cores)

    def product_work(self, tokens: int, sizes: Sizes, has_weight: bool) -> Work:
        """That of `product`."""
        return frozen_work(tokens, sizes, has_weight) + self.add_work(tokens, sizes, has_weight)

    def gradient_work(self, tokens: int, sizes: Sizes, has_weight: bool, for_x: bool, for_cores: bool) -> Work:
        """That of `gradients`."""
        frozen = frozen_work(tokens, sizes.transposed, has_weight and for_x)
        return frozen + self.add_gradients_work(tokens, sizes, has_weight and for_x, for_x, for_cores)

    @abstractmethod
    def add(self, x: Tensor, cores: Sequence[Tensor], onto: Tensor | None) -> Tensor:
        """x W^T + onto, (T, N) -> (T, M)."""

    @abstractmethod
    def add_gradients(
        self, x: Tensor, g: Tensor, cores: Sequence[Tensor], onto: Tensor | None, for_x: bool, for_cores: bool
    ) -> Gradients:
        """(g W + onto, the gradients of the cores)."""

    @abstractmethod
    def add_work(self, tokens: int, sizes: Sizes, added: bool) -> Work:
        """That of `add`, onto something or not."""

    @abstractmethod
    def add_gradients_work(self, tokens: int, sizes: Sizes, added: bool, for_x: bool, for_cores: bool) -> Work:
        """That of `add_gradients`."""


def add(onto: Tensor | None, y: Tensor) -> Tensor:
    """onto + y, in place where `onto` has the shape of y."""
    if onto is None:
        return y
    return onto.add_(y) if onto.dim() == y.dim() else y + onto


def add_product(onto: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """onto + left @ right, in place where `onto` has the shape of the product."""
    if onto is None:
        return left @ right
    return onto.addmm_(left, right) if onto.dim() == 2 else torch.addmm(onto, left, right)


def frozen_work(tokens: int, sizes: Sizes, has_weight: bool) -> Work:
    """That of the product with the frozen weight, which every way but the fused one needs."""
    M, N = sizes.shape
    return Work((Product(tokens, N, M),)) if has_weight else Work()
