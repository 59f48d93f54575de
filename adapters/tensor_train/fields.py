"""What the kinds built from tensor networks take: format, modes, ranks, shape, single cores, sharing.

format          cores of a layer                             what layers share
tensor_train    r_{k-1} m_k n_k r_k numbers, r_0 = r_d = 1   shared_cores
tensor_ring     the same with r_0 = r_d = r                  shared_cores
tensor_basis    basis_size coefficients for each core        the bases, basis_size times a train's numbers
cp              m_k n_k r numbers                            shared_cores
tucker          m_k n_k r_k, and r_1 ... r_d beside them     shared_cores
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import nn

import t3nsor as t3
from adapters.base.places import Place
from adapters.base.sharing import Scope
from adapters.base.sublayers import Sublayer
from adapters.configuration import AdapterConfig, as_lists
from adapters.tensor_train.checks import (
    check_cores,
    check_factors,
    check_format,
    check_shape,
    check_sharing,
    resolve_shape,
)
from adapters.tensor_train.modes import (
    Mode,
    RawShape,
    are_plain,
    check_modes,
    has_sites,
    ranks_of_sites,
    scopes_of_modes,
    shape_of_modes,
)
from adapters.tensor_train.patterns import PATTERNS, check_expressions, check_patterns, pattern_value
from adapters.tensor_train.principal import PRINCIPAL
from adapters.validation import ConfigurationError

ShapeMode = Literal["ascending", "descending", "mixed", "reversed_out", "in_only", "out_only", "cheapest"]


@dataclass(frozen=True, kw_only=True)
class TensorTrainFields(AdapterConfig):
    """What every kind built from tensor-train matrices takes.

    Args:
        format: "tensor_train", "tensor_ring" (r_0 = r_d is a rank too), "tensor_basis" (each layer mixes its cores
            from a basis of cores that all have, see ``t3nsor.tensor_basis``), "cp" (a sum of r products of factors) or
            "tucker" (factors and a core tensor).
        basis_size: how many basis cores a core of a "tensor_basis" is mixed from; 4 where nothing is said.
        modes: what each core carries, see ``adapters.tensor_train.modes``; None for "out_in" in all of them.
        rank: one TT rank for every bond (cut in a train to the largest useful one, which site modes do not bound), or
            the list of the d - 1 interior ranks (of a ring all d, r_0 first; of a tucker those of the d factors).
        rank_pattern: ranks of single places by the ends of their paths, see ``adapters.tensor_train.patterns``.
        d: number of cores; 3 where neither it nor modes nor raw_shape is given.
        raw_shape: ((m_1..m_d), (n_1..n_d)), the factors of the out and in features; a linear whose sizes are these
            swapped takes them swapped, unless modes say which cores have which. None to choose by ``shape_mode``.
        shape_pattern: ``raw_shape`` of single places, in the same way as ``rank_pattern``.
        shape_mode: how the factors are chosen, see ``t3nsor.tt_shape``, or "cheapest", see
            ``t3nsor.cheapest_shape``; what ``usual_shape_mode`` gives where nothing is said.
        init: how the cores start but for the one at zero: "glorot", "he", "lecun", or the standard deviation that the
            matrix would have; of a tensor_train "orthogonal" or "identity", in the gauge around the one at zero.
        zero_core: the core that starts at zero, so that the delta does; None for the last one that may.
        frozen_cores: cores that keep their initial value.
        disabled_cores: cores held at the identity-like element.
        shared_cores: cores that several modules have in common; the others, and biases, are each module's own.
        share_across: what the modules that share those cores, or a basis, differ in: "layers", "sublayers"
            (self-attention, feed-forward, ...), "projections" (down and up of a bottleneck; wi and wo) or "tasks", see
            ``adapters.base.sharing``.
        core_activation: activation between the cores; such a layer is not linear and cannot be merged.
        bias: "none", "dense" (one number for each output) or "tt" (a TT vector).
    """

    takes_site_modes: ClassVar[bool] = True
    rank_of_shapes: ClassVar[int | tuple[int, ...] | None] = None
    """The rank that "cheapest" shapes are chosen by where it is not ``rank``, see ``at``."""

    format: str = "tensor_train"
    basis_size: int | None = None
    modes: tuple[Mode, ...] | None = None
    rank: int | tuple[int, ...] = 8
    rank_pattern: dict[str, int | tuple[int, ...]] | None = field(default=None, hash=False)
    d: int | None = None
    raw_shape: RawShape | None = None
    shape_pattern: dict[str, RawShape] | None = field(default=None, hash=False)
    shape_mode: ShapeMode | None = None
    init: Literal["glorot", "he", "lecun", "orthogonal", "identity"] | float = "glorot"
    zero_core: int | None = None
    frozen_cores: tuple[int, ...] = ()
    disabled_cores: tuple[int, ...] = ()
    shared_cores: tuple[int, ...] = ()
    share_across: tuple[Scope, ...] = ("layers",)
    core_activation: Literal["relu", "gelu", "silu", "tanh"] | None = None
    bias: Literal["none", "dense", "tt"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, shape in (
            ("raw_shape", self.raw_shape),
            *(("shape_pattern", s) for s in (self.shape_pattern or {}).values()),
        ):
            check_shape(self, key, shape)
        check_expressions(self)
        for rank in (self.rank_pattern or {}).values():
            if min((rank,) if isinstance(rank, int) else rank, default=1) < 1:
                self.refuse("rank_pattern", "takes whole numbers from 1 on", as_lists(rank), "4 or 8 are usual")
        if self.modes is not None:
            check_modes(self)
        resolve_shape(self, None if self.raw_shape is None else len(self.raw_shape[0]))
        if self.core_activation is not None and self.d == 1:
            self.refuse("core_activation", "stands between cores", f"{self.core_activation!r} with d=1", "take d >= 2")
        if isinstance(self.init, float) and not 0 < self.init < math.inf:
            self.refuse("init", "as a number is a positive standard deviation", self.init, "0.02 is usual")
        check_format(self)
        check_cores(self)
        check_sharing(self)
        self._check_zero_core()

    def _check_zero_core(self) -> None:
        may = self._zero_candidates()
        if not may and has_sites(self.modes):
            rule = 'has a mode "task" that trains, each task\'s own core, which starts at zero'
            self.refuse("modes", rule, as_lists(self.modes), "leave its core out of frozen_cores and disabled_cores")
        if not may:
            rule = "across tasks leaves each task a trained core of its own, which starts at zero"
            mend = 'take one out, or "tasks" out of share_across'
            self.refuse("shared_cores", rule, list(self.shared_cores), mend)
        if self.zero_core is not None:
            if self.zero_core + (self.d if self.zero_core < 0 else 0) not in may:
                rule = f"is one of {sorted(may)}, cores that train and that tasks do not share"
                self.refuse("zero_core", rule, self.zero_core, "choose one of them")
            object.__setattr__(self, "zero_core", self.zero_core % self.d)

    def usual_shape_mode(self) -> ShapeMode:
        """How factors are chosen where neither ``shape_mode`` nor ``raw_shape`` is given."""
        return "ascending"

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        if has_sites(self.modes):
            scopes = enumerate(scopes_of_modes(self.modes))
            return {k: across for k, across in scopes if across and k not in self.disabled_cores}
        names: list[int | str] = list(self.shared_cores)
        if self.format == "tensor_basis":
            names = [f"basis_{k}" for k in range(self.d) if k not in self.disabled_cores]
        return dict.fromkeys(names, frozenset(self.share_across))

    @property
    def core_at_zero(self) -> int:
        """The core that starts at zero so that the delta does: ``zero_core``, or the last one that may.

        One that tasks share may have been trained when the next task comes.
        """
        return max(self._zero_candidates()) if self.zero_core is None else self.zero_core

    def _zero_candidates(self) -> set[int]:
        kept = {*self.frozen_cores, *self.disabled_cores}
        of_all_tasks = {k for k, across in self.shared_slots().items() if "tasks" in across}
        return set(range(self.d)) - kept - of_all_tasks

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        places = super().places(sublayers)
        check_patterns(self, (place.path for place in places))
        return places

    def build_at(self, place: Place, in_features: int, out_features: int) -> nn.Module:
        return self.at(place.path).build(in_features, out_features)

    def at(self, path: str) -> "TensorTrainFields":
        """These fields as they are at one place: with the rank and the shape that patterns say of its path.

        Raises:
            ConfigurationError: two keys of a pattern disagree about it, or what they say does not fit the other fields.
        """
        rank, raw_shape = (pattern_value(self, key, path) for key in PATTERNS)
        if rank is None and raw_shape is None:
            return self
        changes = {"rank": self.rank if rank is None else rank, "rank_pattern": None, "shape_pattern": None}
        if raw_shape is not None:
            changes |= {"raw_shape": raw_shape, "d": None, "shape_mode": None}
            self._check_same_cores(raw_shape, path)
        try:
            placed = replace(self, **changes)
        except ConfigurationError as error:
            raise ConfigurationError(f"At {path}, with its rank_pattern and shape_pattern: {error}") from error
        object.__setattr__(placed, "rank_of_shapes", self.rank)  # ranks of places change no shape
        return placed

    def _check_same_cores(self, raw_shape: RawShape, path: str) -> None:
        """Refuse a shape of another number of cores where single cores are named, by their index among all d."""
        keys = ("zero_core", "frozen_cores", "disabled_cores", "shared_cores")
        named = [key for key in keys if getattr(self, key) not in (None, ())]
        if named and len(raw_shape[0]) != self.d:
            rule = f"has as many cores everywhere where {' and '.join(named)} name single ones"
            given = f"{len(raw_shape[0])} cores at {path} beside {self.d} elsewhere"
            self.refuse("shape_pattern", rule, given, f"give it {self.d} factors a side, or two adapters")

    def shareable_raw_shape(self, out_features: int, in_features: int) -> list[list[int]] | None:
        """Factors with m_k = n_k in the shared cores, which a layer of swapped sizes can share; None if there are none.

        What is left of the sizes goes to the other cores.
        """
        own = self.d - len(self.shared_cores)
        if not own or not self.shared_cores:
            return None
        common = t3.factorize(math.gcd(out_features, in_features), len(self.shared_cores) + 1)[:-1]
        rests = [list(t3.factorize(size // math.prod(common), own)) for size in (out_features, in_features)]
        for k, factor in zip(self.shared_cores, common, strict=True):
            for rest in rests:
                rest.insert(k, factor)
        return rests

    def tt_linear(self, in_features: int, out_features: int, zero: bool, mirrored: bool = False) -> t3.TTLinear:
        """The TT layer of these fields, W (out, in).

        Args:
            zero: whether ``full()`` starts at exactly zero.
            mirrored: whether an explicit ``raw_shape`` is meant for the transposed layer (a bottleneck's way up), also
                where in and out features are equal.
        """
        raw_shape = self.raw_shape
        if raw_shape is None and not are_plain(self.modes):
            raw_shape = shape_of_modes(self.modes, in_features, out_features, self.shape_mode)
        elif raw_shape is None and self.shape_mode == "cheapest":
            raw_shape = t3.cheapest_shape(in_features, out_features, self.d, self.rank_of_shapes or self.rank)
        elif raw_shape is not None:
            sizes = tuple(math.prod(side) for side in raw_shape)
            swapped = mirrored or sizes == (in_features, out_features) != (out_features, in_features)
            if swapped and are_plain(self.modes):
                raw_shape = raw_shape[::-1]
            check_factors(self, raw_shape[0], out_features, "out")
            check_factors(self, raw_shape[1], in_features, "in")
        try:
            rank = self.rank
            if has_sites(self.modes) and self.format == "tensor_train":
                rank = ranks_of_sites(self.modes, raw_shape, rank)
            return t3.TTLinear(
                in_features,
                out_features,
                bias=self.bias,
                d=self.d,
                tt_rank=rank,
                raw_shape=raw_shape,
                shape_mode=self.shape_mode or "ascending",
                frozen_cores=self.frozen_cores,
                disabled_cores=self.disabled_cores,
                core_activation=self.core_activation,
                init="glorot" if self.init == PRINCIPAL else self.init,
                zero_core=self.core_at_zero if zero else None,
                format=t3.TensorBasisFormat(self.basis_size) if self.format == "tensor_basis" else self.format,
                dtype=torch.float32,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"Key 'rank' of adapter kind {self.kind!r} does not fit {in_features} -> {out_features}: {error}"
            ) from error
