"""tt_lora and tt_single: a TT matrix T as a change of a frozen linear map (``adapters.tensor_train.delta``).

    tt_lora      beside a linear     y  = W x + b + s (T x + c)
    tt_single    after a sublayer    y' = y + s (T y + c)

Step 0 equals the base model: one core of T starts at zero, or T - T_0 does (``adapters.tensor_train.principal``).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from torch import nn

from adapters.base.linear_delta import LinearDelta
from adapters.base.loops import DeltaPerLoop, deltas_of
from adapters.base.places import Place
from adapters.base.sharing import plan_sharing
from adapters.base.targets import Targets, check_targets
from adapters.configuration import SublayerKind
from adapters.tensor_train.delta import TensorTrainDelta, TensorTrainSingle
from adapters.tensor_train.fields import TensorTrainFields
from adapters.tensor_train.patterns import common_value, pattern_value
from adapters.tensor_train.principal import PRINCIPAL, check_principal, principal_delta
from adapters.tensor_train.scaling import AUTO, RANK_STABILIZED, mean_sites, named_scaling

ALL_LOOPS = "all"
"""The value of ``loops`` for a delta in each loop of the model."""


@dataclass(frozen=True, kw_only=True)
class TensorTrainDeltaFields(TensorTrainFields):
    """Fields of both kinds.

    Args:
        scaling: s above; "auto" for as large a first step of Adam as that of LoRA, "rank_stabilized" for that of
            gradient descent, see ``adapters.tensor_train.scaling``. The numbers that they stand for are those of
            ``attachments(model)``, and are saved.
        scaling_pattern: s of single places, see ``adapters.tensor_train.patterns``.
        dropout: the probability of dropping an entry of T's input in training.
    """

    delta: ClassVar[type[TensorTrainDelta]] = TensorTrainDelta

    scaling: float | Literal["auto", "rank_stabilized"] = AUTO
    scaling_pattern: dict[str, float] | None = field(default=None, hash=False)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, values in {
            "scaling": [self.scaling],
            "scaling_pattern": (self.scaling_pattern or {}).values(),
        }.items():
            for value in values:
                if not isinstance(value, str) and not math.isfinite(value):
                    self.refuse(key, "must be a finite number", value, f'leave it out for "{AUTO}"')
        if self.scaling_pattern and self.has_sites:
            rule = "is not supported with site modes, whose deltas are one tensor"
            self.refuse("scaling_pattern", rule, self.scaling_pattern, "use scaling")
        if not 0 <= self.dropout < 1:
            self.refuse("dropout", "must be a probability in [0, 1)", self.dropout, "0.1 is typical")

    def build(
        self, in_features: int, out_features: int, shape_rank: int | Sequence[int] | None = None
    ) -> TensorTrainDelta:
        """Build one delta; ``shape_rank`` is the rank that a "cheapest" shape is chosen for, by default ``rank``."""
        linear = self.tt_linear(in_features, out_features, zero=True, shape_rank=shape_rank)
        is_named = isinstance(self.scaling, str)
        return self.delta(linear, named_scaling(self.scaling, linear) if is_named else self.scaling, self.dropout)

    def at(self, path: str) -> "TensorTrainDeltaFields":
        fields = super().at(path)
        scaling = pattern_value(self, "scaling_pattern", path)
        return fields if scaling is None else replace(fields, scaling=scaling, scaling_pattern=None)

    def settled(self, modules: list[tuple[Place, nn.Module]]) -> "TensorTrainDeltaFields":
        """Give the built deltas the scaling of places that share their zero core, and name the numbers.

        Returns:
            The configuration with numbers in place of a name.
        """
        if not isinstance(self.scaling, str) or not modules:
            return self
        deltas = [(place, delta) for place, module in modules for delta in deltas_of(module)]
        places = {
            delta.linear: place for place, delta in deltas if pattern_value(self, "scaling_pattern", place.path) is None
        }
        shared = plan_sharing(nn.Module(), "", "", self, modules).values()
        groups = [[layer for layer, slot in borrowers if slot == layer.zero_core] for _, borrowers in shared]
        sites = {layer: len(layers) for layers in groups for layer in layers}
        if self.has_sites:
            sites = dict.fromkeys(sites, mean_sites([len(layers) for layers in groups if layers] or [1]))
        for _, module in modules:
            first, *others = deltas_of(module)
            if first.linear in places:
                first.scaling = named_scaling(self.scaling, first.linear, sites.get(first.linear, 1))
                for delta in others:  # of the same shape, for other loops or experts
                    delta.scaling = first.scaling
        values = {place.path: delta.scaling for place, delta in deltas}
        most_common = [value for value, _ in Counter(values.values()).most_common()]
        scaling, others = common_value(values, most_common, lambda candidate, _: candidate)
        return replace(self, scaling=scaling, scaling_pattern=others or None)

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
        loops: in a looped model a delta for each loop: "all", or for the first ones, the last of which serves later
            loops too. They are slices of one tensor with the mode "loop", which implies "all", else independent; None
            for one delta for all loops. The number that "all" stands for is in ``attachments(model)``, and is saved.
    """

    position = "beside"
    prefers_cheapest_shape = True
    supports_loops = True
    supports_experts = True

    target_modules: Targets | None = None
    exclude_modules: Targets | None = None
    sublayers: tuple[SublayerKind, ...] = ("self_attention", "cross_attention", "feed_forward")
    init: Literal["glorot", "he", "lecun", "orthogonal", "identity", "principal"] | float = "glorot"
    loops: Literal["all"] | int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_targets(self, "target_modules", self.target_modules)
        check_targets(self, "exclude_modules", self.exclude_modules)
        if self.loops is None and "loop" in (self.modes or ()):
            self._set(loops=ALL_LOOPS)
        if self.loops not in (None, ALL_LOOPS) and self.loops < 1:
            self.refuse("loops", 'must be a positive number or "all"', self.loops, 'write "all"')
        if self.init == PRINCIPAL:
            if self.loops is not None:
                given = f"{self.loops!r} with init={PRINCIPAL!r}"
                self.refuse("loops", "needs deltas that start at zero", given, "leave one of the two out")
            if self.scaling == RANK_STABILIZED:
                given = f"{self.scaling!r} with init={PRINCIPAL!r}"
                self.refuse("scaling", "needs a core that starts at zero", given, "write a number")
            check_principal(self)
            self._set(scaling=1.0 if self.scaling == AUTO else self.scaling)

    def build_at(self, place: Place, in_features: int, out_features: int) -> LinearDelta:
        if "expert" in (self.modes or ()):
            rule = "has a slice per expert in the PEFT tuner alone"
            given = f"{list(self.modes)} at {place.path}"
            self.refuse("modes", rule, given, "use target_parameters of adapters.peft.TensorTrainConfig")
        if self.loops is None:
            return super().build_at(place, in_features, out_features)
        loops = place.sublayer.loops
        if loops is None:
            rule = "needs linears that run in every loop of a looped model"
            self.refuse("loops", rule, f"{self.loops!r} at {place.path}", "leave it out, or name other target_modules")
        count = loops.number if self.loops == ALL_LOOPS else self.loops
        if count > loops.number:
            given = f"{count} for a model with {loops.number}"
            self.refuse("loops", "is at most the loops of the model", given, 'write "all"')
        build = super().build_at
        return DeltaPerLoop((build(place, in_features, out_features) for _ in range(count)), loops)

    def settled(self, modules: list[tuple[Place, nn.Module]]) -> "TensorTrainLoRAConfig":
        settled = super().settled(modules)
        if self.loops != ALL_LOOPS or not modules:
            return settled
        return replace(settled, loops=len(deltas_of(modules[0][1])))

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
