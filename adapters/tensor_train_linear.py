"""A tensor-train matrix as a trainable change of a frozen linear map.

    beside a linear (tt_lora, after Hu et al. 2021, arXiv:2106.09685):   y = W x + b + s (T x + c)
    after a sublayer (tt_single):                                       y' = y + s (T y + c)

T (out, in) is a TT matrix with one core at zero, c the optional bias, s the ``scaling``: at step 0 both change nothing.
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

import t3nsor as t3
from adapters.configuration import SublayerKind
from adapters.tensor_train_fields import ShapeMode, TensorTrainFields


@dataclass(frozen=True, kw_only=True)
class TensorTrainDeltaFields(TensorTrainFields):
    """What both kinds take.

    Args:
        scaling: s above.
        dropout: probability of dropping an entry of what T is applied to, while training.
    """

    scaling: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.scaling):
            self.refuse("scaling", "is a finite number", self.scaling, "1.0 is usual")
        if not 0 <= self.dropout < 1:
            self.refuse("dropout", "is a probability from 0 up to, not including, 1", self.dropout, "0.1 is usual")

    def note(self, model: nn.Module) -> str | None:
        if self.position != "beside" or not self.dropout:
            return super().note(model)
        return (
            f"Adapter kind {self.kind!r} with dropout={self.dropout}: while training, the delta has an input of its "
            "own and is computed beside the frozen weight instead of together with it, which is slower."
        )


@dataclass(frozen=True, kw_only=True)
class TensorTrainLoRAConfig(TensorTrainDeltaFields, kind="tt_lora"):
    """A TT delta beside named linears.

    Its shape is the cheapest to train where nothing is said (docs/performance.md has what was measured), as long as it
    is a train of one rank whose cores are each a linear's own; the mode "ascending" where it is not.

    Args:
        target_modules: names of the linears: wi (T5) or wi_0 and wi_1 (gated forms), wo, and q, k, v, o of the
            attentions; None for all linears of the feed-forward sublayers.
        sublayers: where linears of these names are looked for.
    """

    position = "beside"

    target_modules: tuple[str, ...] | None = None
    sublayers: tuple[SublayerKind, ...] = ("self_attention", "cross_attention", "feed_forward")

    def usual_shape_mode(self) -> ShapeMode:
        has_cores_of_its_own = self.format == "tensor_train" and not (self.shared_cores or self.disabled_cores)
        is_cheapest = isinstance(self.rank, int) and has_cores_of_its_own and self.core_activation is None
        return "cheapest" if is_cheapest else "ascending"

    def build(self, in_features: int, out_features: int) -> "TensorTrainLinear":
        return TensorTrainLinear(self.tt_linear(in_features, out_features, zero=True), self.scaling, self.dropout)


@dataclass(frozen=True, kw_only=True)
class TensorTrainSingleConfig(TensorTrainDeltaFields, kind="tt_single"):
    """One TT layer after a sublayer, without a bottleneck.

    Args:
        sublayers: after which sublayers it sits.
        share_across: what the modules that share cores differ in; a sublayer has one projection, so not "projections".
    """

    position = "after"

    sublayers: tuple[SublayerKind, ...] = ("self_attention", "feed_forward")
    share_across: tuple[Literal["layers", "sublayers", "tasks"], ...] = ("layers",)

    def build(self, in_features: int, out_features: int) -> "TensorTrainSingle":
        return TensorTrainSingle(self.tt_linear(in_features, out_features, zero=True), self.scaling, self.dropout)


class TensorTrainLinear(nn.Module):
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
        """Whether ``onto`` can be used now: not while dropout changes x for T alone, nor with activations inside."""
        return self.is_linear and not (self.training and self.dropout.p > 0)

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


class TensorTrainSingle(TensorTrainLinear):
    """The change added to what it changes: y (..., n) -> y + s (T y + c) (..., n)."""

    def forward(self, y: Tensor) -> Tensor:
        return y + super().forward(y)
