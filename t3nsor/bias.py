"""A bias vector as a tensor train.

b = full() (features,)      cores (r_{k-1}, m_k, 1, r_k),  m_1 ... m_d = features
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .cores import Slot
from .module import TTModule, vector_shape


class TTBias(TTModule):
    """y = x + b with b a TT vector.

    Args:
        features: the last dimension of x.
        d: the number of cores; used only if raw_shape is None.
        tt_rank: an int, clipped at each bond, or a list of d - 1 useful ranks, see `train_ranks`.
        raw_shape: (m_1, ..., m_d); by default `factorize(features, d)`.
        init: "zero" for a b that is exactly zero and gets a gradient, or another init of `initialize_`.
    """

    def __init__(
        self,
        features: int,
        d: int = 3,
        tt_rank: int | Sequence[int] = 8,
        raw_shape: Sequence[int] | None = None,
        init: str | float = "zero",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(vector_shape(features, "features", d, raw_shape), tt_rank, device, dtype)
        self.features, self.init = features, init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values in place."""
        self._draw(self.init)

    def shareable(self) -> dict[Slot, nn.Parameter]:
        """Return no slots: a bias is never shared, even if the layer's weight is."""
        return {}

    def full(self) -> Tensor:
        """Return the dense vector (features,), differentiable in the cores."""
        return super().full().squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + b, (..., features), in the dtype of x."""
        if x.shape[-1:] != (self.features,):
            raise ValueError(
                f"The last dimension of x must be {self.features}; got the shape {tuple(x.shape)}: "
                f"pass (..., {self.features})."
            )
        return x + self.full().to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.features}, raw_shape={self.raw_shape[0]}, ranks={self.ranks}"
