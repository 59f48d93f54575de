"""Fastfood: a random matrix P (size, dim) that is never formed (Le, Sarlos & Smola 2013, arXiv:1408.3060, section 3).

    P = the first ``size`` rows and ``dim`` columns of K blocks under each other,     each of them (L, L)

    block    s H G Pi H B        L = the power of two from dim on,     K = size / L rounded up

    H    Walsh-Hadamard matrix of entries +-1, H H = L 1; applied in L log L steps
    B    diagonal, +-1 at random           G    diagonal, standard normal           Pi    random permutation
    s    1 / (||G||_F sqrt(size)), so that every row of P has the length sqrt(L / size)

The rows within a block are orthogonal where G is near constant, and E ||P x||^2 = ||x||^2 exactly, over B, G and Pi.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDEST = 32
"""The Hadamard matrix of L is a Kronecker product of such with at most so many rows, which are formed."""


def walsh_hadamard(x: Tensor) -> Tensor:
    """H x along the last dimension, of a size L that is a power of two; H in Sylvester's order, not normalised."""
    shape, length = x.shape, x.shape[-1]
    left = length
    while left > 1:
        f = min(left, WIDEST)
        small = _hadamard(f, x)
        # H_L = H_f (x) H_(L/f) (x): act on the first factor and put it last, until all have been first
        x = (small @ x.reshape(-1, f, length // f)).transpose(-1, -2)  # (f, f) x (n, f, L/f) -> (n, L/f, f)
        left //= f
    return x.reshape(shape)


def _hadamard(size: int, like: Tensor) -> Tensor:
    """H (size, size): entry (i, j) is -1 to the number of ones that i and j have in common."""
    matrix, two = like.new_ones(1, 1), like.new_tensor([[1, 1], [1, -1]])
    for _ in range(size.bit_length() - 1):
        matrix = torch.kron(matrix, two)
    return matrix


class Fastfood:
    """x (dim,) -> P x (size,), differentiable in x.

    B, G and Pi are drawn on first use by a generator of torch's CPU, G in float64, so that equal seeds give equal maps
    on every machine; then they stand on the device of x. They are no part of a checkpoint, a copy or a pickle. They
    take 9 bytes for each of the K L >= size rows: signs of 1 byte, numbers of 4, indices of 4.

    Args:
        size: rows of P.
        dim: columns of P.
        seed: a whole number from 0 up to, not including, 2^32, what that generator takes.
    """

    def __init__(self, size: int, dim: int, seed: int) -> None:
        self.size, self.dim, self.seed = size, dim, seed
        self.length = 1 << max(0, dim - 1).bit_length()
        self.blocks = math.ceil(size / self.length)
        self._drawn: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """P x in float32, or float64 for an x of that."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        signs, numbers, order, scale = self._diagonals(x.device)
        with torch.autocast(x.device.type, enabled=False):
            x = F.pad(x.to(dtype), (0, self.length - self.dim))  # (L,)
            x = walsh_hadamard(signs * x)  # H B x, (K, L)
            x = x.flatten().index_select(0, order).reshape(self.blocks, self.length)  # Pi H B x
            x = walsh_hadamard(numbers.to(dtype) * x)  # H G Pi H B x
            return (scale.to(dtype) * x).flatten()[: self.size]

    def _diagonals(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """B (K, L) int8, G (K, L) float32, Pi of all blocks in one (K L,) int32, s (K, 1) float32."""
        if self._drawn is None or self._drawn[0].device != device:
            self._drawn = self._draw(device)
        return self._drawn

    @torch.compiler.disable
    def _draw(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = self.blocks, self.length
        with torch.device("cpu"):
            generator = torch.Generator().manual_seed(self.seed)
            signs = 2 * torch.randint(0, 2, shape, generator=generator, dtype=torch.int8) - 1
            numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
            scale = 1 / (numbers.norm(dim=1, keepdim=True) * self.size**0.5)
            order = torch.cat(
                [
                    torch.randperm(self.length, generator=generator, dtype=torch.int32) + block * self.length
                    for block in range(self.blocks)
                ]
            )
        return signs.to(device), numbers.float().to(device), order.to(device), scale.float().to(device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_drawn": None}
