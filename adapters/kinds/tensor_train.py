"""The kinds that change a frozen linear map by a tensor-train matrix (``adapters.tensor_train.delta``).

    tt_lora      beside a linear:     y = W x + b + s (T x + c)
    tt_single    after a sublayer:    y' = y + s (T y + c)

At step 0 both change nothing: one core of T starts at zero, or T at what is subtracted from it again
(``adapters.tensor_train.principal``).
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from adapters.configuration import SublayerKind
from adapters.tensor_train.delta import TensorTrainDelta, TensorTrainSingle
from adapters.tensor_train.fields import ShapeMode, TensorTrainFields
from adapters.tensor_train.principal import PRINCIPAL, check_principal, principal_delta


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
        init: "principal" too: T starts as the principal part of W, which is subtracted again, see
            ``adapters.tensor_train.principal``.
        sublayers: where linears of these names are looked for.
    """

    position = "beside"

    target_modules: tuple[str, ...] | None = None
    sublayers: tuple[SublayerKind, ...] = ("self_attention", "cross_attention", "feed_forward")
    init: Literal["glorot", "he", "lecun", "orthogonal", "identity", "principal"] | float = "glorot"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init == PRINCIPAL:
            check_principal(self)

    def usual_shape_mode(self) -> ShapeMode:
        has_cores_of_its_own = self.format == "tensor_train" and not (self.shared_cores or self.disabled_cores)
        is_cheapest = isinstance(self.rank, int) and has_cores_of_its_own and self.core_activation is None
        return "cheapest" if is_cheapest else "ascending"

    def build(self, in_features: int, out_features: int) -> TensorTrainDelta:
        if self.init == PRINCIPAL:
            return principal_delta(self.tt_linear(in_features, out_features, zero=False), self.scaling, self.dropout)
        return TensorTrainDelta(self.tt_linear(in_features, out_features, zero=True), self.scaling, self.dropout)


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

    def build(self, in_features: int, out_features: int) -> TensorTrainSingle:
        return TensorTrainSingle(self.tt_linear(in_features, out_features, zero=True), self.scaling, self.dropout)
