"""AdapterConfig: one frozen dataclass per adapter kind, read from JSON and written to it.

    AdapterConfig                  the kind, and where its modules sit: stacks, layers, sublayers
    |-- TensorTrainFields          fields common to all tensor-train kinds (``adapters.tensor_train.fields``)
    `-- one class per kind         in that kind's module in ``adapters.kinds``, registered by its ``kind``

``AdapterConfig.from_dict({"kind": "tt_lora", "rank": 4})`` finds the class by the kind. Every check that needs no model
runs in ``__post_init__``, which is also the only place where fields are set to their resolved values.
"""

import warnings
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, get_type_hints

from torch import nn

from adapters.base.places import PLACES, Place
from adapters.base.sharing import Scope
from adapters.base.sublayers import Sublayer
from adapters.checked_fields import CheckedFields
from adapters.kind_names import suggest_kind
from adapters.validation import ConfigurationError, check_keys, check_type, nearest_name, refuse

Stack = Literal["encoder", "decoder"]
SublayerKind = Literal["self_attention", "cross_attention", "feed_forward"]


NON_EMPTY = ("stacks", "sublayers", "target_modules", "exclude_modules", "share_across")
"""Fields that are lists of names and need at least one."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(CheckedFields):
    """Base class of all kinds: the stacks and layers that get the adapter.

    Args:
        stacks: "encoder", "decoder" or both; a model may have only one of them.
        layers: block indices in each stack, from 0; None for all blocks.
    """

    kind: ClassVar[str] = ""
    position: ClassVar[Literal["before", "around", "beside", "after", "norm", "weights"]]
    kinds: ClassVar[dict[str, type["AdapterConfig"]]] = {}
    reads_weights: ClassVar[bool] = False
    """Whether the shapes of the adapter's tensors can depend on the values of the base weights."""
    earlier_names: ClassVar[dict[str, str]] = {}
    """The present name of each field that earlier versions called otherwise."""

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
            value = check_type(field.name, getattr(self, field.name), hints[field.name], self.where)
            if value == () and field.name in NON_EMPTY:
                self.refuse(field.name, "needs at least one name", "an empty list", "leave it out for the default")
            self._set(**{field.name: value})
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            self.refuse("layers", "must hold block indices from 0", list(self.layers), "use null for all blocks")

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        """Return where the modules of this adapter go in a model with these sublayers."""
        return PLACES[self.position](self, sublayers)

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        """Return the scopes across which each shared slot is shared, see ``adapters.base.sharing``; by default none."""
        return {}

    def field_of_slot(self, slot: int | str) -> str:
        """Return the field that makes a slot of ``shared_slots`` shared, for error messages."""
        return "share_across"

    def site_mode(self, core: int) -> str | None:
        """Return the site mode of a core that has a slice for each layer, matrix, linear or task; None by default."""
        return None

    def build_at(self, place: Place, in_features: int, out_features: int) -> nn.Module:
        """Build the module of one place at a linear; by default the same for all places, see ``build``."""
        return self.build(in_features, out_features)

    def build_together(self, bases: dict[str, nn.Module], places: list[Place]) -> dict[str, nn.Module] | None:
        """The modules of all ``places`` by path, for a kind whose modules depend on each other; else None."""
        return None

    def settled(self, modules: list[tuple[Place, nn.Module]]) -> "AdapterConfig":
        """Return this configuration with the values that follow from all modules it has built; by default itself."""
        return self

    def note(self, model: nn.Module) -> str | None:
        """Return a sentence for the log about attaching this adapter to ``model``; by default None."""
        return None

    @property
    def where(self) -> str:
        """What error messages call this configuration."""
        return f"adapter kind {self.kind!r}"

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "AdapterConfig":
        """Build the configuration that ``{"kind": ..., field: value, ...}`` describes.

        Raises:
            ConfigurationError: the kind or a field is unknown (the nearest name is suggested), or a value is invalid.
        """
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"An adapter must be an object with a key 'kind'; got {values!r}: "
                'write for example {"kind": "tt_lora", "rank": 4}.'
            )
        values = dict(values)
        kind = values.pop("kind", None)
        family, colon, _ = str(kind).partition(":")
        cls = AdapterConfig.kinds.get(f"{family}:<TYPE>" if colon else kind) if isinstance(kind, str) else None
        if cls is None:
            name = kind if isinstance(kind, str) else ""
            meant = suggest_kind(name, AdapterConfig.kinds)
            fix = nearest_name("" if meant else name, AdapterConfig.kinds)
            fix = f"did you mean {meant}? {fix[0].upper()}{fix[1:]}" if meant else fix
            raise ConfigurationError(f"Key 'kind' of an adapter must name an adapter kind; got {kind!r}: {fix}")
        for earlier in cls.earlier_names.keys() & values.keys():
            _warn_of_earlier_name(earlier, cls, values)
        return cls.from_fields(kind, with_present_names(cls, values))

    @classmethod
    def from_fields(cls, kind: str, values: dict[str, Any]) -> "AdapterConfig":
        """Build a configuration of this class; a family such as ``peft:<TYPE>`` reads its type from ``kind``."""
        where = f"adapter kind {kind!r}"
        check_keys(values, [field.name for field in fields(cls)], where)
        for field in fields(cls):
            if field.name not in values and field.default is field.default_factory is MISSING:
                refuse(field.name, "is required", f"the keys {sorted(values)}", "add it", where)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which ``from_dict`` reads back as an equal configuration."""
        return {"kind": self.kind, **{field.name: as_lists(getattr(self, field.name)) for field in fields(self)}}


def with_present_names(cls: type[AdapterConfig], values: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON form of a configuration of ``cls`` with the present names of its fields."""
    return {cls.earlier_names.get(key, key): value for key, value in values.items()}


def _warn_of_earlier_name(earlier: str, cls: type[AdapterConfig], values: dict[str, Any]) -> None:
    name, where = cls.earlier_names[earlier], f"adapter kind {cls.kind!r}"
    if name in values:
        given = f"{earlier}={values[earlier]!r} and {name}={values[name]!r}"
        refuse(earlier, f"is the earlier name of {name!r}", given, "leave it out", where)
    warnings.warn(
        f"Key {earlier!r} of {where} is called {name!r} now; got {values[earlier]!r} under the earlier name, which is "
        "read all the same: rename it, or save the adapter again.",
        FutureWarning,
        stacklevel=3,
    )


def as_lists(value: Any) -> Any:
    """Return ``value`` with its tuples as JSON lists, in dictionaries too."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, tuple) else value
