"""Fastfood: a random matrix P (size, dim) that is never formed (Le, Sarlos & Smola 2013, arXiv:1408.3060, section 3).

    P = the first ``size`` rows and ``dim`` columns of K stacked blocks (L, L)

    block    s H G Pi H B        L = the smallest power of two >= dim,     K = ceil(size / L)

    H    Walsh-Hadamard matrix with entries +-1, H H = L 1; applied in L log L steps
    B    diagonal, random +-1              G    diagonal, standard normal           Pi    random permutation
    s    1 / (||G||_F sqrt(size)), so that every row of P has norm sqrt(L / size)

The rows within a block are orthogonal if G is nearly constant, and E ||P x||^2 = ||x||^2 exactly, over B, G and Pi.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_FACTOR = 32
"""Rows of the largest Hadamard matrix that is formed; the one of size L is a Kronecker product of such factors."""


def walsh_hadamard(x: Tensor) -> Tensor:
    """Return H x along the last dimension, whose size L is a power of two; H in Sylvester's order, not normalised."""
    shape, length = x.shape, x.shape[-1]
    left = length
    while left > 1:
        f = min(left, MAX_FACTOR)
        small = _hadamard(f, x)
        # H_L = H_f (x) H_(L/f) (x): act on the first factor and move it last, for each factor
        x = (small @ x.reshape(-1, f, length // f)).transpose(-1, -2)  # (f, f) x (n, f, L/f) -> (n, L/f, f)
        left //= f
    return x.reshape(shape)


def _hadamard(size: int, like: Tensor) -> Tensor:
    """Return H (size, size): entry (i, j) is -1 to the power of the number of common ones of i and j in binary."""
    matrix, two = like.new_ones(1, 1), like.new_tensor([[1, 1], [1, -1]])
    for _ in range(size.bit_length() - 1):
        matrix = torch.kron(matrix, two)
    return matrix


class Fastfood:
    """x (dim,) -> P x (size,), differentiable in x.

    B, G and Pi are drawn on first use with a CPU generator, G in float64, so that equal seeds give equal maps on every
    machine, and then moved to the device of x. They are not saved, copied or pickled. They take 9 bytes for each of the
    K L >= size rows: a sign (1 byte), a normal sample (4) and an index (4).

    Args:
        size: rows of P.
        dim: columns of P.
        seed: an integer in [0, 2^32), the seeds of that generator.
    """

    def __init__(self, size: int, dim: int, seed: int) -> None:
        self.size, self.dim, self.seed = size, dim, seed
        self.length = 1 << max(0, dim - 1).bit_length()
        self.blocks = math.ceil(size / self.length)
        self._drawn: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return P x in float32, or in float64 for a float64 x."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        signs, normal, order, scale = self._factors(x.device)
        with torch.autocast(x.device.type, enabled=False):
            x = F.pad(x.to(dtype), (0, self.length - self.dim))  # (L,)
            x = walsh_hadamard(signs * x)  # H B x, (K, L)
            x = x.flatten().index_select(0, order).reshape(self.blocks, self.length)  # Pi H B x
            x = walsh_hadamard(normal.to(dtype) * x)  # H G Pi H B x
            return (scale.to(dtype) * x).flatten()[: self.size]

    def _factors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return B (K, L) int8, G (K, L) float32, Pi of all blocks (K L,) int32 and s (K, 1) float32."""
        if self._drawn is None or self._drawn[0].device != device:
            self._drawn = self._draw(device)
        return self._drawn

    @torch.compiler.disable
    def _draw(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = self.blocks, self.length
        with torch.device("cpu"):
            generator = torch.Generator().manual_seed(self.seed)
            signs = 2 * torch.randint(0, 2, shape, generator=generator, dtype=torch.int8) - 1
            normal = torch.randn(shape, generator=generator, dtype=torch.float64)
            scale = 1 / (normal.norm(dim=1, keepdim=True) * self.size**0.5)
            order = torch.cat(
                [
                    torch.randperm(self.length, generator=generator, dtype=torch.int32) + block * self.length
                    for block in range(self.blocks)
                ]
            )
        return signs.to(device), normal.float().to(device), order.to(device), scale.float().to(device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_drawn": None}
