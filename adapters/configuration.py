"""One frozen dataclass per adapter kind, made from and written to JSON.

    AdapterConfig                  a kind and its fields; where in the model it sits: stacks, layers, sublayers
    |-- TensorTrainFields          what every tensor-train kind takes (``adapters.tensor_train.fields``)
    `-- (each kind's own class stands in the module of that kind, and registers itself by its ``kind``)

``AdapterConfig.from_dict({"kind": "tt_lora", "rank": 4})`` finds the class by the kind. All checks run in
``__post_init__``, so a configuration that exists is valid as far as can be told without a model.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NoReturn, get_type_hints

from torch import nn

from adapters.base.places import PLACES, Place
from adapters.base.sharing import Scope
from adapters.base.sublayers import Sublayer
from adapters.validation import ConfigurationError, check_keys, check_type, nearest_name, refuse

Stack = Literal["encoder", "decoder"]
SublayerKind = Literal["self_attention", "cross_attention", "feed_forward"]


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Base of every kind: in which stacks and layers it sits.

    Args:
        stacks: of "encoder" and "decoder", those that take the adapter.
        layers: block numbers counted from 0 in each stack; None for all of them.
    """

    kind: ClassVar[str] = ""
    position: ClassVar[Literal["before", "around", "beside", "after", "norm", "weights"]]
    kinds: ClassVar[dict[str, type["AdapterConfig"]]] = {}
    reads_weights: ClassVar[bool] = False
    """Whether the shapes of its tensors may depend on the values of the base's."""

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
        """What the modules share, by slot (see ``adapters.base.sharing``), and across what; nothing by default."""
        return {}

    def build_at(self, place: Place, in_features: int, out_features: int) -> nn.Module:
        """The module of one place at a linear; as ``build`` where the kind does not care which place it is."""
        return self.build(in_features, out_features)

    def note(self, model: nn.Module) -> str | None:
        """What is worth saying in the log when this is attached to ``model``, a sentence; nothing by default."""
        return None

    @property
    def where(self) -> str:
        """What error messages call this configuration."""
        return f"adapter kind {self.kind!r}"

    def refuse(self, key: str, rule: str, given: Any, fix: str) -> NoReturn:
        """Raise the error of one key of this configuration, see ``adapters.validation.refuse``."""
        refuse(key, rule, given, fix, self.where)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "AdapterConfig":
        """The configuration that ``{"kind": ..., field: value, ...}`` describes.

        Raises:
            ConfigurationError: the kind or a field is unknown (the nearest name is said), or a value does not fit.
        """
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"An adapter is described by an object with a key 'kind'; got {values!r}: "
                'write for example {"kind": "tt_lora", "rank": 4}.'
            )
        values = dict(values)
        kind = values.pop("kind", None)
        family, colon, _ = str(kind).partition(":")
        cls = AdapterConfig.kinds.get(f"{family}:<TYPE>" if colon else kind) if isinstance(kind, str) else None
        if cls is None:
            raise ConfigurationError(
                f"Key 'kind' of an adapter names what is trained; got {kind!r}: "
                f"{nearest_name(kind if isinstance(kind, str) else '', AdapterConfig.kinds)}"
            )
        return cls.from_fields(kind, values)

    @classmethod
    def from_fields(cls, kind: str, values: dict[str, Any]) -> "AdapterConfig":
        """The configuration of this class with these fields; a family of kinds reads its member off ``kind``."""
        check_keys(values, [field.name for field in fields(cls)], f"adapter kind {kind!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; ``from_dict`` of it gives an equal configuration."""
        plain = {field.name: as_lists(getattr(self, field.name)) for field in fields(self)}
        return {"kind": self.kind, **plain}


def as_lists(value: Any) -> Any:
    """Tuples as the lists that JSON has in their place, also those inside a dictionary."""
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, tuple) else value
