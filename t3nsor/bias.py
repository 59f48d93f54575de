"""A bias vector as a tensor train.

    b = full() (features,)      cores (r_{k-1}, m_k, 1, r_k),  m_1 ... m_d = features
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .initializers import constant_, random_, standard_deviation
from .module import TTModule
from .shapes import check_factors, check_product, factorize, positive_int


class TTBias(TTModule):
    """y = x + b with b a TT vector.

    Args:
        features: the last dimension of x.
        d: the number of cores; read only where raw_shape is None.
        tt_rank: an int, clipped at each bond to what the bond can use, or a list of d - 1 ranks.
        raw_shape: (m_1, ..., m_d); None chooses by `factorize(features, d)`.
        init: "zero": b is exactly zero and gets a gradient; or a standard deviation for the entries of b.
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
        features = positive_int(features, "features")
        factors = factorize(features, d) if raw_shape is None else check_factors(raw_shape, "raw_shape")
        check_product(factors, features, "features")
        super().__init__((factors, (1,) * len(factors)), tt_rank, device, dtype)
        self.features, self.init = features, init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the start values anew, in place."""
        if self.init == "zero":
            constant_(self.cores, 0.0)
        else:
            random_(self.cores, standard_deviation(self.init, 1, self.features))

    def full(self) -> Tensor:
        """The dense vector (features,), differentiable in the cores."""
        return self.tensor_train().full().squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> the same shape and dtype."""
        return x + self.full().to(x.dtype)

    def extra_repr(self) -> str:
        return f"features={self.features}, raw_shape={self.raw_shape[0]}, ranks={self.ranks}"
