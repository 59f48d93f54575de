"""One linear map, many forms: what stands in the two projections of a bottleneck.

A form is a name and a function (configuration, in, out, zero) -> nn.Module mapping (..., in) to (..., out), whose
output starts at exactly zero where ``zero`` is asked for. A new form is one function and one line of the registry.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.configuration import AdapterConfig


class DenseLinear(nn.Linear):
    """nn.Linear in the dtype of x; starts Glorot-normal (Glorot & Bengio 2010) with bias zero, or zero altogether."""

    def __init__(self, in_features: int, out_features: int, zero: bool) -> None:
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


def dense(config: AdapterConfig, in_features: int, out_features: int, zero: bool) -> nn.Module:
    return DenseLinear(in_features, out_features, zero)


def tensor_train(config: AdapterConfig, in_features: int, out_features: int, zero: bool) -> nn.Module:
    return config.tt_linear(in_features, out_features, zero=zero, mirrored=zero)


LINEAR_FORMS: dict[str, Callable[..., nn.Module]] = {"dense": dense, "tensor_train": tensor_train}
