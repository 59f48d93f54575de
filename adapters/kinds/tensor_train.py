"""tt_lora and tt_single: a TT matrix T as a change of a frozen linear map (``adapters.tensor_train.delta``).

    tt_lora      beside a linear     y  = W x + b + s (T x + c)
    tt_single    after a sublayer    y' = y + s (T y + c)

Step 0 equals the base model: one core of T starts at zero, or T - T_0 does (``adapters.tensor_train.principal``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from adapters.base.targets import Targets, check_targets
from adapters.configuration import SublayerKind
from adapters.tensor_train.delta import TensorTrainDelta, TensorTrainSingle
from adapters.tensor_train.fields import TensorTrainFields
from adapters.tensor_train.principal import PRINCIPAL, check_principal, principal_delta


@dataclass(frozen=True, kw_only=True)
class TensorTrainDeltaFields(TensorTrainFields):
    """Fields of both kinds.

    Args:
        scaling: s above.
        dropout: the probability of dropping an entry of T's input in training.
    """

    delta: ClassVar[type[TensorTrainDelta]] = TensorTrainDelta

    scaling: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.scaling):
            self.refuse("scaling", "must be a finite number", self.scaling, "1.0 is typical")
        if not 0 <= self.dropout < 1:
            self.refuse("dropout", "must be a probability in [0, 1)", self.dropout, "0.1 is typical")

    def build(
        self, in_features: int, out_features: int, shape_rank: int | Sequence[int] | None = None
    ) -> TensorTrainDelta:
        """Build one delta; ``shape_rank`` is the rank that a "cheapest" shape is chosen for, by default ``rank``."""
        linear = self.tt_linear(in_features, out_features, zero=True, shape_rank=shape_rank)
        return self.delta(linear, self.scaling, self.dropout)

    def note(self, model: nn.Module) -> str | None:
        if self.position != "beside" or not self.dropout:
            return super().note(model)
        return (
            f"Adapter kind {self.kind!r} with dropout={self.dropout}: in training the delta has its own input, so it "
            "is computed beside the frozen weight instead of together with it, which is slower."
        )


@dataclass(frozen=True, kw_only=True)
class TensorTrainLoRAConfig(TensorTrainDeltaFields, kind="tt_lora"):
    """A TT delta beside each target linear; LoRA is the case of two cores.

    By default it has the shape that is cheapest to train (docs/performance.md).

    Args:
        target_modules: linears by name (wi and wo in T5, query and value in BERT) or by role (q, k, v, o, in, gate,
            out), "all-linear", or a regular expression for whole paths, see ``adapters.base.targets``; None for all
            linears of the feed-forward sublayers.
        exclude_modules: linears to leave out, named likewise.
        init: also "principal": T starts as the principal part of W, see ``adapters.tensor_train.principal``.
        sublayers: the sublayers with target linears.
    """

    position = "beside"
    prefers_cheapest_shape = True

    target_modules: Targets | None = None
    exclude_modules: Targets | None = None
    sublayers: tuple[SublayerKind, ...] = ("self_attention", "cross_attention", "feed_forward")
    init: Literal["glorot", "he", "lecun", "orthogonal", "identity", "principal"] | float = "glorot"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_targets(self, "target_modules", self.target_modules)
        check_targets(self, "exclude_modules", self.exclude_modules)
        if self.init == PRINCIPAL:
            check_principal(self)

    @property
    def random_init(self) -> str | float:
        return "glorot" if self.init == PRINCIPAL else self.init

    def build(
        self, in_features: int, out_features: int, shape_rank: int | Sequence[int] | None = None
    ) -> TensorTrainDelta:
        if self.init != PRINCIPAL:
            return super().build(in_features, out_features, shape_rank)
        linear = self.tt_linear(in_features, out_features, zero=False, shape_rank=shape_rank)
        return principal_delta(linear, self.scaling, self.dropout)


@dataclass(frozen=True, kw_only=True)
class TensorTrainSingleConfig(TensorTrainDeltaFields, kind="tt_single"):
    """One TT layer after each sublayer, without a bottleneck.

    Args:
        sublayers: the sublayers that it comes after.
        share_across: the scopes across which cores are shared; not "projections", as a sublayer has only one.
    """

    position = "after"
    delta = TensorTrainSingle

    sublayers: tuple[SublayerKind, ...] = ("self_attention", "feed_forward")
    share_across: tuple[Literal["layers", "sublayers", "tasks"], ...] = ("layers",)
