"""A tensor-train matrix as a change of a frozen linear map: the modules.

    beside a linear (after Hu et al. 2021, arXiv:2106.09685):   y = W x + b + s (T x + c)
    after a sublayer:                                           y' = y + s (T y + c)

T (out, in) is a TT matrix, c the optional bias, s the ``scaling``; with one core of T at zero both have no effect.
"""

from torch import Tensor, nn

import t3nsor as t3
from adapters.base.hooks import is_hooked
from adapters.base.linear_delta import LinearDelta


class TensorTrainDelta(LinearDelta):
    """The change alone: x (..., in) -> s (T x + c) (..., out)."""

    def __init__(self, linear: t3.TTLinear, scaling: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = linear
        self.scaling = scaling
        self.dropout = nn.Dropout(dropout)

    @property
    def is_linear(self) -> bool:
        return self.linear.is_linear

    def reset_parameters(self) -> None:
        self.linear.reset_parameters()

    def delta_weight(self) -> Tensor:
        """s T, (out, in)."""
        return self.scaling * self.linear.full()

    def added_to(self, weight: Tensor) -> Tensor:
        """weight + s T, (out, in), in one pass and in the dtype of ``weight``."""
        network = self.linear.network().to(weight.dtype)
        return (network if self.scaling == 1 else network * self.scaling).added_to(weight)

    def delta_bias(self) -> Tensor | None:
        """s c, (out,), or None without a bias."""
        bias = self.linear.full_bias()
        return None if bias is None else self.scaling * bias

    @property
    def fuses(self) -> bool:
        """Whether ``onto`` can be used now: not while dropout changes x for T alone, nor with activations inside.

        Nor where somebody looks at the calls of the delta or its layer, for it makes none.
        """
        drops = self.training and self.dropout.p > 0
        return self.is_linear and not drops and not is_hooked(self) and not is_hooked(self.linear)

    def onto(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b + s (T x + c) with the frozen W (out, in) and b (out,), as one contraction; only where ``fuses``."""
        change = self.delta_bias()
        if bias is not None and change is not None:
            change = bias + change.to(bias.dtype)
        network = self.linear.network()
        if self.scaling != 1:
            network = network * self.scaling
        return t3.matmul(x, network, self.linear.plan, weight=weight, bias=bias if change is None else change)

    def forward(self, x: Tensor) -> Tensor:
        change = self.linear(self.dropout(x))
        return change if self.scaling == 1 else self.scaling * change

    def extra_repr(self) -> str:
        return f"scaling={self.scaling}"


class TensorTrainSingle(TensorTrainDelta):
    """The change added to what it changes: y (..., n) -> y + s (T y + c) (..., n)."""

    def forward(self, y: Tensor) -> Tensor:
        return y + super().forward(y)
