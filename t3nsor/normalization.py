"""Layer norms with few trainable numbers: T5's RMS norm with a tensor-train weight, and ScaleNorm.

    rms(x) = x / sqrt( mean_i x_i^2 + eps )                     no mean, no bias (Zhang & Sennrich 2019, eq. 4)
    TTLayerNorm   y = w * rms(x)            w (dim,) = a TT vector, cores (r_{k-1}, m_k, 1, r_k)
    ScaleNorm     y = g * x / ||x||         one number g (Nguyen & Salazar 2019, eq. 5)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .decompositions import tt_svd
from .initializers import constant_
from .module import TTModule
from .shapes import check_factors, check_product, factorize, positive_int


def rms_normalized(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, computed in float32 at least, in the dtype of x."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class TTLayerNorm(TTModule):
    """T5's layer norm with a TT vector as its weight; input (..., dim), output of the same shape and dtype.

    Args:
        normalized_shape: dim.
        d: the number of cores; read only where raw_shape is None.
        tt_rank: an int, clipped at each bond to what the bond can use, or a list of d - 1 ranks.
        raw_shape: (m_1, ..., m_d); None chooses by `factorize(dim, d)`.
        eps: added to the mean square.
        init: "ones" or a number: exactly this constant in each entry, with rank indices that are not symmetric. For a
            pretrained weight there is `from_weight`, or `decompose_` for a module that exists already.
    """

    def __init__(
        self,
        normalized_shape: int,
        d: int = 3,
        tt_rank: int | Sequence[int] = 8,
        raw_shape: Sequence[int] | None = None,
        eps: float = 1e-6,
        init: str | float = "ones",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        dim = positive_int(normalized_shape, "normalized_shape")
        factors = factorize(dim, d) if raw_shape is None else check_factors(raw_shape, "raw_shape")
        check_product(factors, dim, "normalized_shape")
        super().__init__((factors, (1,) * len(factors)), tt_rank, device, dtype)
        self.normalized_shape, self.eps, self.init = dim, eps, init
        self.reset_parameters()

    @classmethod
    def from_weight(
        cls,
        weight: Tensor,
        d: int = 3,
        tt_rank: int | Sequence[int] = 8,
        raw_shape: Sequence[int] | None = None,
        eps: float = 1e-6,
    ) -> "TTLayerNorm":
        """The norm whose weight is the TT-SVD of `weight` (dim,), on its device, in float32 at least."""
        dtype = torch.promote_types(weight.dtype, torch.float32)
        norm = cls(weight.shape[-1], d, tt_rank, raw_shape, eps, device=weight.device, dtype=dtype)
        return norm.decompose_(weight)

    def reset_parameters(self) -> None:
        """Set the weight to the constant `init`, in place."""
        constant_(self.cores, 1.0 if self.init == "ones" else self.init)

    @torch.no_grad()
    def decompose_(self, weight: Tensor) -> "TTLayerNorm":
        """Set the cores in place to the TT-SVD of `weight` (dim,); cores on the meta device move to the weight's device."""
        train = tt_svd(weight.detach().double(), self.raw_shape, max_rank=self.ranks[1:-1])
        if self.cores[0].is_meta:
            self.to_empty(device=weight.device)
        for core, value in zip(self.cores, train.cores, strict=True):
            core.copy_(value)
        return self

    @property
    def weight(self) -> Tensor:
        """The dense weight (dim,), differentiable in the cores."""
        return self.tensor_train().full().squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.weight.to(x.dtype) * rms_normalized(x, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, raw_shape={self.raw_shape[0]}, ranks={self.ranks}, eps={self.eps}"


class ScaleNorm(nn.Module):
    """y = g * x / ||x||, with g = sqrt(dim) at the start, where it equals the RMS norm with weight ones.

    `eps` is added to the mean square, as in T5's layer norm. Input (..., dim), output of the same shape and dtype.
    """

    def __init__(
        self, dim: int, eps: float = 1e-6, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ):
        super().__init__()
        self.dim, self.eps = positive_int(dim, "dim"), eps
        self.g = nn.Parameter(torch.empty((), device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set g to sqrt(dim), in place."""
        self.g.fill_(math.sqrt(self.dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return (self.g / math.sqrt(self.dim)).to(x.dtype) * rms_normalized(x, self.eps)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}"
