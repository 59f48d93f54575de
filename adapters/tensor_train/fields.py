"""TensorTrainFields: the fields common to all kinds built from TT matrices, and the layer that they describe.

T = W of a layer (out, in), cores G_k (r_{k-1}, m_k, n_k, r_k)

format          parameters of a layer                                shared by layers
tensor_train    sum of r_{k-1} m_k n_k r_k, r_0 = r_d = 1            shared_cores
tensor_ring     the same sum, r_0 = r_d = r                          shared_cores
tensor_basis    d basis_size coefficients                            the bases, basis_size trains
cp              sum of m_k n_k r                                     shared_cores
tucker          sum of m_k n_k r_k, and r_1 ... r_d                  shared_cores
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import nn

import t3nsor as t3
from adapters.base.places import Place
from adapters.base.sharing import Scope
from adapters.base.sublayers import Sublayer
from adapters.configuration import AdapterConfig, as_lists
from adapters.tensor_train import checks
from adapters.tensor_train.layer_shape import ShapeMode, layer_shape, resolve_shape_mode, shareable_shape
from adapters.tensor_train.modes import (
    INDEXED_BY,
    Mode,
    RawShape,
    check_modes,
    has_sites,
    ranks_of_sites,
    scopes_of_modes,
)
from adapters.tensor_train.patterns import check_expressions, check_patterns, pattern_value
from adapters.validation import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class TensorTrainFields(AdapterConfig):
    """Fields common to all kinds built from TT matrices.

    Args:
        format: "tensor_train", "tensor_ring" (r_0 = r_d is a rank too), "tensor_basis" (each layer mixes its cores
            from basis cores common to all layers, see ``t3nsor.tensor_basis``), "cp" (a sum of r products of factors)
            or "tucker" (factors and a core tensor).
        basis_size: the number of basis cores per core of a "tensor_basis"; 4 by default.
        modes: what each core carries, see ``adapters.tensor_train.modes``; None for "out_in" in all of them.
        rank: one TT rank for every bond (clipped in a train to the largest useful one, which site modes do not bound),
            or the list of the d - 1 interior ranks (in a ring all d, r_0 first; in a tucker those of the d factors).
        rank_pattern: ranks of single places by the ends of their paths, see ``adapters.tensor_train.patterns``.
        d: the number of cores; by default that of modes or raw_shape, or 3.
        raw_shape: ((m_1..m_d), (n_1..n_d)), the factors of the out and in features; a linear of swapped sizes gets them
            swapped, unless modes assign them to cores. None to choose them by ``shape_mode``.
        shape_pattern: ``raw_shape`` of single places, as ``rank_pattern``.
        shape_mode: how the factors are chosen: a mode of ``t3nsor.tt_shape``, or "cheapest", see
            ``t3nsor.cheapest_shape``; for the default see ``adapters.tensor_train.layer_shape``.
        init: the initialization of all cores but the zero one: "glorot", "he", "lecun", or the standard deviation that
            the matrix would have; in a tensor_train also "orthogonal" or "identity", a canonical form around the zero
            core.
        zero_core: the core that starts at zero, so that the delta starts at zero; None for the last eligible one.
        frozen_cores: cores that keep their initial value.
        disabled_cores: cores fixed at the identity-like element.
        shared_cores: cores that several modules share; the other cores, and biases, are each module's own.
        share_across: the scopes across which those cores, or a basis, are shared: "layers", "sublayers"
            (self-attention, feed-forward, ...), "projections" (down and up of a bottleneck; wi and wo) or "tasks", see
            ``adapters.base.sharing``.
        core_activation: activation between the cores; the layer is then not linear and cannot be merged.
        delta_bias: the bias of the layer: "none", "dense" (one parameter per output) or "tt" (a TT vector).
    """

    supports_site_modes: ClassVar[bool] = True
    supports_loops: ClassVar[bool] = False
    supports_experts: ClassVar[bool] = False
    prefers_cheapest_shape: ClassVar[bool] = False
    earlier_names: ClassVar[dict[str, str]] = {"bias": "delta_bias"}

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
    share_across: tuple[Literal["layers", "sublayers", "projections", "tasks"], ...] = ("layers",)
    core_activation: Literal["relu", "gelu", "silu", "tanh"] | None = None
    delta_bias: Literal["none", "dense", "tt"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.raw_shape is not None:
            checks.check_shape(self, "raw_shape", self.raw_shape)
        for shape in (self.shape_pattern or {}).values():
            checks.check_shape(self, "shape_pattern", shape)
        checks.check_rank(self, "rank", self.rank)
        for rank in (self.rank_pattern or {}).values():
            checks.check_rank(self, "rank_pattern", rank)
        check_expressions(self)
        if self.modes is not None:
            check_modes(self)
        checks.check_format(self)
        given = {"modes": self.modes and len(self.modes), "raw_shape": self.raw_shape and len(self.raw_shape[0])}
        self._set(d=checks.resolve_number_of_cores(self, given))
        self._set(shape_mode=resolve_shape_mode(self), basis_size=checks.resolve_basis_size(self))
        checks.check_rank_list(self, t3.FORMATS[self.format].free_bonds(self.d))
        checks.check_activation(self)
        checks.check_init(self)
        self._set(**checks.resolve_core_lists(self))
        checks.check_sharing(self)
        self._set(zero_core=checks.resolve_zero_core(self, self._zero_candidates()))

    @property
    def has_sites(self) -> bool:
        """Whether the adapter is one tensor for the whole model, with site modes."""
        return has_sites(self.modes)

    @property
    def core_at_zero(self) -> int:
        """The core that starts at zero so that the delta does: ``zero_core``, or the last eligible one.

        A core that tasks share is not eligible: it may already be trained when the next task is added.
        """
        return max(self._zero_candidates()) if self.zero_core is None else self.zero_core

    def _zero_candidates(self) -> list[int]:
        """The cores that train and that tasks do not share."""
        fixed = {*self.frozen_cores, *self.disabled_cores}
        across_tasks = {k for k, scopes in self.shared_slots().items() if "tasks" in scopes}
        return sorted(set(range(self.d)) - fixed - across_tasks)

    @property
    def tensor_format(self) -> str | t3.TensorBasisFormat:
        """The format of the layers, with its parameter if it has one."""
        return t3.TensorBasisFormat(self.basis_size) if self.format == "tensor_basis" else self.format

    @property
    def random_init(self) -> str | float:
        """The initialization of the cores of a layer, but for the zero one."""
        return self.init

    def field_of_slot(self, slot: int | str) -> str:
        if slot in self.shared_cores:
            return "shared_cores"
        return "share_across" if self.modes is None else "modes"

    def site_mode(self, core: int) -> str | None:
        return self.modes[core] if self.modes is not None and self.modes[core] in INDEXED_BY else None

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        if self.has_sites:
            scopes = enumerate(scopes_of_modes(self.modes))
            return {k: across for k, across in scopes if across and k not in self.disabled_cores}
        slots: list[int | str] = list(self.shared_cores)
        if self.format == "tensor_basis":
            slots = [f"basis_{k}" for k in range(self.d) if k not in self.disabled_cores]
        return dict.fromkeys(slots, frozenset(self.share_across))

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        places = super().places(sublayers)
        check_patterns(self, (place.path for place in places))
        return places

    def build_at(self, place: Place, in_features: int, out_features: int) -> nn.Module:
        return self.build_at_path(place.path, in_features, out_features)

    def build_at_path(self, path: str, in_features: int, out_features: int) -> nn.Module:
        """Build the module of the place at ``path``, with its own rank and shape if a pattern matches.

        The module's own rank does not change its shape: "cheapest" is chosen for the general rank.
        """
        return self.at(path).build(in_features, out_features, shape_rank=self.rank)

    def at(self, path: str) -> "TensorTrainFields":
        """Return these fields with the rank and the shape that the patterns give the place at ``path``.

        Raises:
            ConfigurationError: two keys of a pattern disagree about the place, or their value does not fit the other
                fields.
        """
        rank, raw_shape = (pattern_value(self, key, path) for key in ("rank_pattern", "shape_pattern"))
        if rank is None and raw_shape is None:
            return self
        changes = {"rank": self.rank if rank is None else rank, "rank_pattern": None, "shape_pattern": None}
        if raw_shape is not None:
            changes |= {"raw_shape": raw_shape, "d": None, "shape_mode": None}
            self._check_same_cores(raw_shape, path)
        try:
            return replace(self, **changes)
        except ConfigurationError as error:
            raise ConfigurationError(f"At {path}, with its rank_pattern and shape_pattern: {error}") from error

    def _check_same_cores(self, raw_shape: RawShape, path: str) -> None:
        """Check that a shape of a place has d cores if other fields name single cores by their index."""
        keys = ("zero_core", "frozen_cores", "disabled_cores", "shared_cores")
        named = [key for key in keys if getattr(self, key) not in (None, ())]
        if named and len(raw_shape[0]) != self.d:
            rule = f"must have the same number of cores everywhere if {' and '.join(named)} name single cores"
            given = f"{len(raw_shape[0])} cores at {path} and {self.d} elsewhere"
            self.refuse("shape_pattern", rule, given, f"give it {self.d} factors a side, or use two adapters")

    def shareable_raw_shape(self, out_features: int, in_features: int) -> list[list[int]] | None:
        """Return a raw shape whose shared cores fit a layer of swapped sizes too; None if there is none."""
        return shareable_shape(self.shared_cores, self.d, out_features, in_features)

    def tt_linear(
        self,
        in_features: int,
        out_features: int,
        zero: bool,
        mirrored: bool = False,
        shape_rank: int | Sequence[int] | None = None,
    ) -> t3.TTLinear:
        """Build the TT layer of these fields, W (out, in), in float32.

        Args:
            zero: whether ``full()`` starts at exactly zero.
            mirrored: whether an explicit ``raw_shape`` is that of the transposed layer (the up projection of a
                bottleneck), even if in and out features are equal.
            shape_rank: the rank that a "cheapest" shape is chosen for; None for ``rank``.
        """
        rank: int | Sequence[int] = self.rank
        raw_shape = layer_shape(self, in_features, out_features, shape_rank or rank, mirrored)
        try:
            if self.has_sites and self.format == "tensor_train":
                rank = ranks_of_sites(self.modes, raw_shape, rank)
            return t3.TTLinear(
                in_features,
                out_features,
                bias=self.delta_bias,
                tt_rank=rank,
                raw_shape=raw_shape,
                frozen_cores=self.frozen_cores,
                disabled_cores=self.disabled_cores,
                core_activation=self.core_activation,
                init=self.random_init,
                zero_core=self.core_at_zero if zero else None,
                format=self.tensor_format,
                dtype=torch.float32,
            )
        except ValueError as error:
            reason = str(error)
        self.refuse("rank", f"must fit a layer {in_features} -> {out_features}", as_lists(self.rank), reason)
