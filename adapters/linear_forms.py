"""Linear maps for the two projections of a bottleneck, beside ``t3nsor.TTLinear``: (..., in) -> (..., out)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseLinear(nn.Linear):
    """nn.Linear in the dtype of x; starts Glorot-normal (Glorot & Bengio 2010) with bias zero, or zero altogether."""

    def __init__(self, in_features: int, out_features: int, zero: bool = False) -> None:
        self.zero = zero
        super().__init__(in_features, out_features, dtype=torch.float32)

    def reset_parameters(self) -> None:
        if self.zero:
            nn.init.zeros_(self.weight)
        else:
            nn.init.xavier_normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))  # (..., in) -> (..., out)
