"""TensorTrainDelta: a TT matrix as a trainable change of a frozen linear map.

    TensorTrainDelta     beside a linear (as LoRA, Hu et al. 2021, arXiv:2106.09685)    y  = W x + b + s (T x + c)
    TensorTrainSingle    after a sublayer                                               y' = y + s (T y + c)

    T (out, in)    a TT matrix of cores (r_{k-1}, m_k, n_k, r_k); while one core is zero, nothing changes
    c (out,)       an optional bias, zero at the start
    s              ``scaling``

A linear 768 -> 3072 with d = 3 and rank 8 has the cores (1, 96, 2, 8), (8, 32, 1, 8) and (8, 1, 384, 1) in the default
shape: 6,656 trainable parameters beside the 2,359,296 of W.
"""

from torch import Tensor, nn

import t3nsor as t3
from adapters.base.hooks import is_hooked
from adapters.base.linear_delta import LinearDelta


class TensorTrainDelta(LinearDelta):
    """The delta alone: x (..., in) -> s (T x + c) (..., out).

    Args:
        linear: T and c; the delta holds this ``TTLinear``.
        scaling: s.
        dropout: the probability of dropping an entry of x in training.
    """

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
        """Return s T, (out, in)."""
        return self.scaling * self.linear.full()

    def added_to(self, weight: Tensor) -> Tensor:
        """Return weight + s T, (out, in), in one pass and in the dtype of ``weight``."""
        network = self.linear.network().to(weight.dtype)
        return (network if self.scaling == 1 else network * self.scaling).added_to(weight)

    def delta_bias(self) -> Tensor | None:
        """Return s c, (out,); None without a bias."""
        bias = self.linear.full_bias()
        return None if bias is None else self.scaling * bias

    @property
    def fuses(self) -> bool:
        """Whether ``onto`` can be used now.

        It cannot while dropout changes x for T alone, with activations between the cores, or with hooks on the delta
        or its layer, whose ``forward`` it does not call.
        """
        drops = self.training and self.dropout.p > 0
        return self.is_linear and not drops and not is_hooked(self) and not is_hooked(self.linear)

    def onto(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return W x + b + s (T x + c) as one contraction; only if ``fuses``.

        Args:
            x: (..., in).
            weight: the frozen W (out, in).
            bias: the frozen b (out,), or None.
        """
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
    """The delta added to its input: y (..., n) -> y + s (T y + c) (..., n)."""

    def forward(self, y: Tensor) -> Tensor:
        return y + super().forward(y)
