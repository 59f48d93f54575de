"""One frozen dataclass per adapter kind, made from and written to JSON.

    AdapterConfig                  a kind and its fields; where in the model it sits: stacks, layers, sublayers
    |-- TensorTrainFields          what every tensor-train kind takes: rank, d, shape, cores, bias
    `-- (each kind's own class stands in the module of that kind, and registers itself by its ``kind``)

``AdapterConfig.from_dict({"kind": "tt_lora", "rank": 4})`` finds the class by the kind. All checks run in
``__post_init__``, so a configuration that exists is valid as far as can be told without a model.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_type_hints

import torch

import t3nsor as t3
from adapters.places import PLACES, Place
from adapters.sharing import Scope
from adapters.sublayers import Sublayer
from adapters.validation import ConfigurationError, check_keys, check_type, nearest_name

Stack = Literal["encoder", "decoder"]
SublayerKind = Literal["self_attention", "cross_attention", "feed_forward"]


DEFAULT_CORES = 3
"""The number of cores where neither ``d`` nor ``raw_shape`` says it."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Base of every kind: in which stacks and layers it sits.

    Args:
        stacks: of "encoder" and "decoder", those that take the adapter.
        layers: block numbers counted from 0 in each stack; None for all of them.
    """

    kind: ClassVar[str] = ""
    position: ClassVar[Literal["beside", "after", "norm", "weights"]]
    kinds: ClassVar[dict[str, type["AdapterConfig"]]] = {}

    stacks: tuple[Stack, ...] = ("encoder", "decoder")
    layers: tuple[int, ...] | None = None

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            cls.kind = kind
            AdapterConfig.kinds[kind] = cls

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value = check_type(field.name, getattr(self, field.name), hints[field.name], f"adapter kind {self.kind!r}")
            object.__setattr__(self, field.name, value)
        for name in ("stacks", "sublayers", "target_modules", "share_across"):
            if getattr(self, name, None) == ():
                self.refuse(name, "takes at least one name", "an empty list", "leave the key out for the default")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            self.refuse("layers", "takes block numbers from 0 on", list(self.layers), "use null for every layer")

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        """Where in a model with these sublayers the modules of this adapter go."""
        return PLACES[self.position](self, sublayers)

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        """What the modules have in common, by slot (see ``adapters.sharing``), and across what; nothing by default."""
        return {}

    def refuse(self, key: str, rule: str, given: Any, mend: str) -> None:
        """Raise the three-part sentence about one key of this configuration."""
        raise ConfigurationError(f"Key {key!r} of adapter kind {self.kind!r} {rule}; given was {given}: {mend}.")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "AdapterConfig":
        """The configuration that ``{"kind": ..., field: value, ...}`` describes.

        Raises:
            ConfigurationError: the kind or a field is unknown (the nearest name is said), or a value does not fit.
        """
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"An adapter is described by an object with a key 'kind'; given was {values!r}: "
                'write for example {"kind": "tt_lora", "rank": 4}.'
            )
        values = dict(values)
        kind = values.pop("kind", None)
        if not isinstance(kind, str) or kind not in AdapterConfig.kinds:
            raise ConfigurationError(
                f"Key 'kind' of an adapter names what is trained; given was {kind!r}: "
                f"{nearest_name(str(kind), AdapterConfig.kinds)}"
            )
        cls = AdapterConfig.kinds[kind]
        check_keys(values, [field.name for field in fields(cls)], f"adapter kind {kind!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; ``from_dict`` of it gives an equal configuration."""
        plain = {field.name: _as_lists(getattr(self, field.name)) for field in fields(self)}
        return {"kind": self.kind, **plain}


@dataclass(frozen=True, kw_only=True)
class TensorTrainFields(AdapterConfig):
    """What every kind built from tensor-train matrices takes.

    Args:
        rank: one TT rank for every bond (cut to the largest useful one), or the list of the d - 1 interior ranks.
        d: number of cores; 3 where neither it nor raw_shape is given.
        raw_shape: ((m_1..m_d), (n_1..n_d)), the factors of the out and in features; None to choose by ``shape_mode``.
        shape_mode: how the factors are chosen, see ``t3nsor.tt_shape``; "ascending" where nothing is said.
        init: how the cores start but for the one at zero: "glorot", "he", "lecun", or the standard deviation that the
            matrix would have.
        frozen_cores: cores that keep their initial value.
        disabled_cores: cores held at the identity-like element.
        shared_cores: cores that several modules have in common; the others are each module's own.
        share_across: what those modules differ in: "layers", "sublayers" (self-attention, feed-forward, ...),
            "projections" (down and up of a bottleneck; wi and wo) or "tasks", see ``adapters.sharing``.
        core_activation: activation between the cores; such a layer is not linear and cannot be merged.
        bias: "none", "dense" (one number for each output) or "tt" (a TT vector).
    """

    rank: int | tuple[int, ...] = 8
    d: int | None = None
    raw_shape: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    shape_mode: Literal["ascending", "descending", "mixed", "reversed_out", "in_only", "out_only"] | None = None
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
                    _as_lists(self.raw_shape),
                    "write for example [[12, 16, 16], [8, 8, 12]]",
                )
        resolve_shape(self, None if self.raw_shape is None else len(self.raw_shape[0]))
        if self.core_activation is not None and self.d == 1:
            self.refuse("core_activation", "stands between cores", f"{self.core_activation!r} with d=1", "take d >= 2")
        if isinstance(self.init, float) and not 0 < self.init < math.inf:
            self.refuse("init", "as a number is a positive standard deviation", self.init, "0.02 is usual")
        check_cores(self)

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        return dict.fromkeys(self.shared_cores, frozenset(self.share_across))

    @property
    def zero_core(self) -> int:
        """The core that starts at zero so that the delta does: the last one that trains.

        One that tasks share may have been trained when the next task comes, so it is taken only where all are such.
        """
        trained = set(range(self.d)) - set(self.frozen_cores) - set(self.disabled_cores)
        return max((trained - set(self.shared_cores) if "tasks" in self.share_across else trained) or trained)

    def tt_linear(self, in_features: int, out_features: int, zero: bool, mirrored: bool = False) -> t3.TTLinear:
        """The TT layer of these fields, W (out, in).

        Args:
            zero: whether ``full()`` starts at exactly zero.
            mirrored: whether an explicit ``raw_shape`` is meant for the transposed layer (a bottleneck's way up).
        """
        raw_shape = self.raw_shape[::-1] if mirrored and self.raw_shape is not None else self.raw_shape
        if raw_shape is not None:
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
        config.refuse("rank", "takes whole numbers from 1 on", _as_lists(config.rank), "4 or 8 are usual")
    if not isinstance(config.rank, int) and len(ranks) != config.d - 1:
        config.refuse(
            "rank",
            f"as a list holds the d - 1 = {config.d - 1} interior ranks",
            list(ranks),
            "give one number for all bonds, or one for each",
        )
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


def check_factors(config: Any, factors: tuple[int, ...], size: int, side: str) -> None:
    """Refuse factors of ``raw_shape`` whose product is not the size of the layer's side."""
    if math.prod(factors) != size:
        given = f"{list(factors)} with product {math.prod(factors)}"
        mend = f"{list(t3.factorize(size, len(factors)))} would do"
        config.refuse("raw_shape", f"has factors whose product is the {side} size {size}", given, mend)


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value
