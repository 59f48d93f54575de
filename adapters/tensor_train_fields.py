"""What the kinds built from tensor networks take: format, ranks, shape, single cores, sharing; and how that is checked.

format          cores of a layer                             what layers share
tensor_train    r_{k-1} m_k n_k r_k numbers, r_0 = r_d = 1   shared_cores
tensor_ring     the same with r_0 = r_d = r                  shared_cores
tensor_basis    basis_size coefficients for each core        the bases, basis_size times a train's numbers
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

import t3nsor as t3
from adapters.configuration import AdapterConfig, as_lists
from adapters.sharing import Scope
from adapters.validation import ConfigurationError, nearest_name
from t3nsor.tensor_basis import BASIS_SIZE

ShapeMode = Literal["ascending", "descending", "mixed", "reversed_out", "in_only", "out_only", "cheapest"]

DEFAULT_CORES = 3
"""The number of cores where neither ``d`` nor ``raw_shape`` says it."""


@dataclass(frozen=True, kw_only=True)
class TensorTrainFields(AdapterConfig):
    """What every kind built from tensor-train matrices takes.

    Args:
        format: "tensor_train", "tensor_ring" (r_0 = r_d is a rank too) or "tensor_basis" (each layer mixes its cores
            from a basis of cores that all have, see ``t3nsor.tensor_basis``).
        basis_size: how many basis cores a core of a "tensor_basis" is mixed from; 4 where nothing is said.
        rank: one TT rank for every bond (cut in a train to the largest useful one), or the list of the d - 1 interior
            ranks (of a ring all d, r_0 first).
        d: number of cores; 3 where neither it nor raw_shape is given.
        raw_shape: ((m_1..m_d), (n_1..n_d)), the factors of the out and in features; a linear whose sizes are these
            swapped takes them swapped. None to choose by ``shape_mode``.
        shape_mode: how the factors are chosen, see ``t3nsor.tt_shape``, or "cheapest", see
            ``t3nsor.cheapest_shape``; "ascending" where nothing is said.
        init: how the cores start but for the one at zero: "glorot", "he", "lecun", or the standard deviation that the
            matrix would have.
        frozen_cores: cores that keep their initial value.
        disabled_cores: cores held at the identity-like element.
        shared_cores: cores that several modules have in common; the others, and biases, are each module's own.
        share_across: what the modules that share those cores, or a basis, differ in: "layers", "sublayers"
            (self-attention, feed-forward, ...), "projections" (down and up of a bottleneck; wi and wo) or "tasks", see
            ``adapters.sharing``.
        core_activation: activation between the cores; such a layer is not linear and cannot be merged.
        bias: "none", "dense" (one number for each output) or "tt" (a TT vector).
    """

    format: str = "tensor_train"
    basis_size: int | None = None
    rank: int | tuple[int, ...] = 8
    d: int | None = None
    raw_shape: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    shape_mode: ShapeMode | None = None
    init: Literal["glorot", "he", "lecun"] | float = "glorot"
    frozen_cores: tuple[int, ...] = ()
    disabled_cores: tuple[int, ...] = ()
    shared_cores: tuple[int, ...] = ()
    share_across: tuple[Scope, ...] = ("layers",)
    core_activation: Literal["relu", "gelu", "silu", "tanh"] | None = None
    bias: Literal["none", "dense", "tt"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.raw_shape is not None:
            rows, columns = self.raw_shape
            if not rows or len(rows) != len(columns) or min(*rows, *columns) < 1:
                self.refuse(
                    "raw_shape",
                    "takes two lists of equally many factors, each at least 1",
                    as_lists(self.raw_shape),
                    "write for example [[12, 16, 16], [8, 8, 12]]",
                )
        resolve_shape(self, None if self.raw_shape is None else len(self.raw_shape[0]))
        if self.core_activation is not None and self.d == 1:
            self.refuse("core_activation", "stands between cores", f"{self.core_activation!r} with d=1", "take d >= 2")
        if isinstance(self.init, float) and not 0 < self.init < math.inf:
            self.refuse("init", "as a number is a positive standard deviation", self.init, "0.02 is usual")
        self._check_format()
        check_cores(self)
        check_sharing(self)
        if not self._zero_candidates():
            self.refuse(
                "shared_cores",
                "across tasks leaves each task a trained core of its own, which starts at zero",
                list(self.shared_cores),
                'take one out, or "tasks" out of share_across',
            )

    def _check_format(self) -> None:
        if self.format not in t3.FORMATS:
            self.refuse("format", "names a format", repr(self.format), nearest_name(self.format, t3.FORMATS)[:-1])
        if self.format == "tensor_basis":
            if self.basis_size is None:
                object.__setattr__(self, "basis_size", BASIS_SIZE)
            if self.basis_size < 1:
                self.refuse("basis_size", "counts basis cores and is at least 1", self.basis_size, "4 is usual")
            if self.shared_cores:
                rule = "takes no tensor_basis, which has the bases of all cores in common and no core"
                self.refuse("shared_cores", rule, list(self.shared_cores), "leave it out")
        elif self.basis_size is not None:
            given = f"{self.basis_size} with format={self.format!r}"
            self.refuse("basis_size", "belongs to a tensor_basis", given, 'leave it out, or write "tensor_basis"')

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        slots: list[int | str] = list(self.shared_cores)
        if self.format == "tensor_basis":
            slots = [f"basis_{k}" for k in range(self.d) if k not in self.disabled_cores]
        return dict.fromkeys(slots, frozenset(self.share_across))

    @property
    def zero_core(self) -> int:
        """The core that starts at zero so that the delta does: the last one that trains and that tasks do not share.

        One that they share may have been trained when the next task comes.
        """
        return max(self._zero_candidates())

    def _zero_candidates(self) -> set[int]:
        kept = {*self.frozen_cores, *self.disabled_cores}
        return set(range(self.d)) - kept - set(self.shared_cores if "tasks" in self.share_across else ())

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
        if raw_shape is not None:
            sizes = tuple(math.prod(side) for side in raw_shape)
            if mirrored or sizes == (in_features, out_features) != (out_features, in_features):
                raw_shape = raw_shape[::-1]
            check_factors(self, raw_shape[0], out_features, "out")
            check_factors(self, raw_shape[1], in_features, "in")
        try:
            return t3.TTLinear(
                in_features,
                out_features,
                bias=self.bias,
                d=self.d,
                tt_rank=self.rank if isinstance(self.rank, int) else list(self.rank),
                raw_shape=raw_shape,
                shape_mode=self.shape_mode or "ascending",
                frozen_cores=self.frozen_cores,
                disabled_cores=self.disabled_cores,
                core_activation=self.core_activation,
                init=self.init,
                zero_core=self.zero_core if zero else None,
                format=self.format,
                basis_size=self.basis_size,
                dtype=torch.float32,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"Key 'rank' of adapter kind {self.kind!r} does not fit {in_features} -> {out_features}: {error}"
            ) from error


def resolve_shape(config: Any, given_cores: int | None) -> None:
    """Say how many cores there are and how their factors are chosen; refuse what an explicit ``raw_shape`` excludes."""
    if given_cores is not None:
        for key, fits in (("d", (None, given_cores)), ("shape_mode", (None,))):
            value = getattr(config, key, None)
            if value not in fits:
                config.refuse(key, "is given by raw_shape", f"{value!r} beside a raw_shape", "drop one of the two")
        object.__setattr__(config, "d", given_cores)
        return
    if config.d is None:
        object.__setattr__(config, "d", DEFAULT_CORES)
    if hasattr(config, "shape_mode") and config.shape_mode is None:
        object.__setattr__(config, "shape_mode", "ascending")


def check_cores(config: Any) -> None:
    """Hold rank, d and the core lists of a tensor-train configuration against each other; count cores from 0."""
    if config.d < 1:
        config.refuse("d", "counts the cores and is at least 1", config.d, "3 is usual")
    ranks = (config.rank,) if isinstance(config.rank, int) else config.rank
    if any(rank < 1 for rank in ranks):
        config.refuse("rank", "takes whole numbers from 1 on", as_lists(config.rank), "4 or 8 are usual")
    bonds = t3.FORMATS[getattr(config, "format", "tensor_train")].free_bonds(config.d)
    if not isinstance(config.rank, int) and len(ranks) != len(bonds):
        named = ", ".join(f"r_{k}" for k in bonds) or "none for a single core"
        rule = f"as a list holds {len(bonds)} ranks ({named})"
        config.refuse("rank", rule, list(ranks), "give one number for all bonds, or one for each")
    for name in ("frozen_cores", "disabled_cores", "shared_cores"):
        cores = getattr(config, name)
        for core in cores:
            if not -config.d <= core < config.d:
                config.refuse(name, f"counts cores from 0 to {config.d - 1}", core, "name cores that exist")
        object.__setattr__(config, name, tuple(sorted({core % config.d for core in cores})))
    for core in set(config.disabled_cores) & {*config.frozen_cores, *config.shared_cores}:
        config.refuse("disabled_cores", "excludes frozen and shared cores", core, "name the core in one list only")
    if len({*config.frozen_cores, *config.disabled_cores}) == config.d:
        config.refuse("frozen_cores", "leaves at least one core to train", list(config.frozen_cores), "free one core")


def check_sharing(config: Any) -> None:
    """Refuse a ``share_across`` that nothing reads."""
    default = type(config).share_across
    if not config.shared_slots() and config.share_across != default:
        given = f"{list(config.share_across)} without shared_cores"
        config.refuse("share_across", "says across what cores are shared", given, "name the cores, or leave it out")


def check_factors(config: Any, factors: tuple[int, ...], size: int, side: str) -> None:
    """Refuse factors of ``raw_shape`` whose product is not the size of the layer's side."""
    if math.prod(factors) != size:
        given = f"{list(factors)} with product {math.prod(factors)}"
        mend = f"{list(t3.factorize(size, len(factors)))} would do"
        config.refuse("raw_shape", f"has factors whose product is the {side} size {size}", given, mend)
