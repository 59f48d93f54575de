"""Layer norms with few trainable parameters: T5's RMS norm with a tensor-train weight, and ScaleNorm.

rms(x) = x / sqrt( mean_i x_i^2 + eps )         no mean, no bias (Zhang & Sennrich 2019, eq. 4)

    TTLayerNorm   y = w * rms(x)                w (dim,) is a TT vector, cores (r_{k-1}, m_k, 1, r_k)
    ScaleNorm     y = g * x / ||x||             one scalar g (Nguyen & Salazar 2019, eq. 5)

A disabled core of a TTLayerNorm is held at E[a, i, 0, b] = 1 if a = b, else 0, rectangular if r_{k-1} != r_k: the
weight is then constant along the factor m_k.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from .decompositions import tt_svd
from .module import TTModule, vector_shape
from .shapes import positive_int


class TTLayerNorm(TTModule):
    """T5's layer norm with a TT vector as its weight; (..., dim) -> (..., dim), in the dtype of x.

    Args:
        normalized_shape: dim.
        d: the number of cores; used only if raw_shape is None.
        tt_rank: an int, clipped at each bond, or a list of d - 1 useful ranks, see `train_ranks`.
        raw_shape: (m_1, ..., m_d); by default `factorize(dim, d)`.
        eps: added to the mean square.
        init: "ones" for a weight of exactly 1 that is trainable at any rank, or another init of `initialize_`. To start
            from a pretrained weight, use `from_weight`, or `decompose_` on an existing module.
        frozen_cores, disabled_cores: indices of cores, negative ones from the end; see the head of this file.
    """

    def __init__(
        self,
        normalized_shape: int,
        d: int = 3,
        tt_rank: int | Sequence[int] = 8,
        raw_shape: Sequence[int] | None = None,
        eps: float = 1e-6,
        init: str | float = "ones",
        frozen_cores: Iterable[int] = (),
        disabled_cores: Iterable[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        raw_shape = vector_shape(normalized_shape, "normalized_shape", d, raw_shape)
        super().__init__(raw_shape, tt_rank, device, dtype, frozen_cores, disabled_cores)
        self.normalized_shape, self.eps, self.init = normalized_shape, _check_eps(eps), init
        self.reset_parameters()

    @classmethod
    def from_weight(
        cls,
        weight: Tensor,
        d: int = 3,
        tt_rank: int | Sequence[int] = 8,
        eps: float = 1e-6,
        raw_shape: Sequence[int] | None = None,
    ) -> "TTLayerNorm":
        """Return the norm whose weight is the TT-SVD of `weight` (dim,), on its device, in float32 at least."""
        _check_weight(weight)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        norm = cls(len(weight), d, tt_rank, raw_shape, eps, device=weight.device, dtype=dtype)
        return norm.decompose_(weight)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the initial values in place."""
        self._draw(self.init)
        cores = self.live_cores()
        for k in self.disabled_cores:
            r, _, _, s = cores[k].shape
            rank_identity = torch.eye(r, s, dtype=cores[k].dtype, device=cores[k].device)
            cores[k].copy_(rank_identity[:, None, None, :])  # (r, 1, 1, s) -> (r, m, 1, s)

    @torch.no_grad()
    def decompose_(self, weight: Tensor) -> "TTLayerNorm":
        """Set the cores in place to the TT-SVD of `weight` (dim,); meta cores move to the weight's device.

        Raises:
            TypeError, ValueError: `weight` does not fit, or a core is disabled.
        """
        _check_weight(weight, self.normalized_shape)
        if self.disabled_cores:
            raise ValueError(
                "A weight is decomposed into all cores of a norm; got disabled_cores = "
                f"{self.disabled_cores}: build the norm without disabled_cores."
            )
        train = tt_svd(weight.double(), self.raw_shape, max_rank=self.ranks[1:-1])
        if any(core.is_meta for core in self.cores if core is not None):
            self.to_empty(device=weight.device)
        for core, value in zip(self.live_cores(), train.cores, strict=True):
            core.copy_(value)
        return self

    @property
    def weight(self) -> Tensor:
        """The dense weight (dim,), differentiable in the cores."""
        return self.full()

    def full(self) -> Tensor:
        """Return the dense weight (dim,), differentiable in the cores."""
        return super().full().squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return w * rms(x), (..., dim), in the dtype of x."""
        return self.weight.to(x.dtype) * _rms_normalized(x, self.normalized_shape, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, raw_shape={self.raw_shape[0]}, ranks={self.ranks}, eps={self.eps}"


class ScaleNorm(nn.Module):
    """y = g * x / ||x||; g is initialised to sqrt(dim), which is the RMS norm with weight ones.

    `eps` is added to the mean square, as in T5's layer norm. (..., dim) -> (..., dim), in the dtype of x.
    """

    def __init__(
        self,
        dim: int,
        eps: float = 1e-6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.dim, self.eps = positive_int(dim, "dim"), _check_eps(eps)
        self.g = nn.Parameter(torch.empty((), device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set g to sqrt(dim), in place."""
        self.g.fill_(math.sqrt(self.dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return g * x / ||x||, (..., dim), in the dtype of x."""
        return (self.g / math.sqrt(self.dim)).to(x.dtype) * _rms_normalized(x, self.dim, self.eps)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps}"


def _check_weight(weight: Tensor, dim: int | None = None) -> None:
    """Raise TypeError or ValueError unless weight is a floating-point vector, of `dim` entries if given."""
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        given = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a floating-point tensor; got {given}: convert it first.")
    if weight.dim() != 1 or dim not in (None, len(weight)):
        raise ValueError(
            f"weight must be a vector of {dim or 'dim'} entries; got the shape {tuple(weight.shape)}: "
            "pass the weight of the norm to replace."
        )


def _check_eps(eps: float) -> float:
    if isinstance(eps, bool) or not isinstance(eps, Real) or not 0 <= eps < math.inf:
        raise ValueError(f"eps must be a finite number of at least 0; got {eps!r}: pass e.g. 1e-6.")
    return eps


def _rms_normalized(x: Tensor, dim: int, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) over the last dimension, computed in float32 at least, in the dtype of x."""
    if not x.is_floating_point() or x.dim() == 0 or x.shape[-1] != dim:
        raise ValueError(
            f"A norm over {dim} features needs a floating-point x of shape (..., {dim}); got the shape "
            f"{tuple(x.shape)} and the dtype {x.dtype}: check which layer feeds it."
        )
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
