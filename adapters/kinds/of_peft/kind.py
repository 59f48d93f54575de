"""peft:<TYPE>: PEFT's own methods as adapter kinds.

    {"kind": "peft:LORA", "r": 8, "lora_alpha": 16, "target_modules": ["wi", "wo"], "stacks": ["decoder"]}

The fields are those of PEFT's configuration of that type, and ``stacks`` and ``layers`` as in every kind. PEFT injects
its layers into a stand-in that has only the target modules, at their paths, so the model is changed only after PEFT has
accepted everything. ``adapters.kinds.of_peft.layers`` puts those layers into the model.

PEFT is an optional dependency, imported when the first such kind is read.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, get_type_hints

import torch
from torch import nn

from adapters.base.adapted_layer_norm import plain_norm
from adapters.base.kept_base import KeptBase
from adapters.base.linear_layers import LINEAR_CLASSES, as_out_in, features
from adapters.base.places import Place, norms
from adapters.base.sublayers import Sublayer, select_sublayers
from adapters.base.targets import candidates, check_targets, is_all_linear, roles_as_paths
from adapters.configuration import AdapterConfig
from adapters.kinds.of_peft.layers import PEFT_NAME, PeftAdapter, PeftLinearAdapter, PeftNormAdapter
from adapters.kinds.of_peft.types import (
    FAMILY,
    PREFIX,
    STARTS,
    ZERO_START_NAMES,
    config_class_of,
    tuner_class_of,
    unsupported_reason,
)
from adapters.validation import ConfigurationError, check_keys, check_type, nearest_name

logger = logging.getLogger(__name__)

NORM_TYPES = ("LN_TUNING",)


@dataclass(frozen=True, kw_only=True)
class PeftKindConfig(AdapterConfig, kind=FAMILY):
    """A method of PEFT with its own fields: peft:LORA, peft:LOKR, ...

    Args:
        peft_type: a member of PEFT's PeftType.
        options: fields of its configuration. ``target_modules`` are the feed-forward linears by default; for IA3 the
            keys, the values and the last feed-forward linear, and for LN_TUNING the layer norms.
    """

    position = "around"
    reads_weights = True
    sublayers: ClassVar[tuple[str, ...]] = (
        "embedding",
        "self_attention",
        "cross_attention",
        "feed_forward",
        "final",
    )

    peft_type: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config_class = config_class_of(self.peft_type)
        object.__setattr__(self, "kind", PREFIX + self.peft_type)
        super().__post_init__()
        hints = get_type_hints(config_class)
        known = {entry.name for entry in fields(config_class) if entry.init}
        for key, value in self.options.items():
            if key in known and (reason := unsupported_reason(key)):
                self.refuse(key, reason, repr(value), "leave it out")
        check_keys(
            self.options,
            [*(key for key in known if not unsupported_reason(key)), "stacks", "layers"],
            f"adapter kind {self.kind!r}",
        )
        for key, value in self.options.items():
            check_type(key, value, hints[key], f"adapter kind {self.kind!r}")
        if (start := self.options.get("init_lora_weights", True)) not in ZERO_START_NAMES:
            rule = "leaves the base model's weights as they are"
            self.refuse("init_lora_weights", rule, repr(start), 'use true or "gaussian"')
        for key in ("target_modules", "exclude_modules"):
            check_targets(self, key, self.options.get(key))
        if self.options.get("target_modules") == []:
            self.refuse("target_modules", "takes at least one name", "an empty list", "leave it out for the default")
        given = self.options.get("target_modules")
        self.peft_config(["wo"] if given is None else given)

    @classmethod
    def from_fields(cls, kind: str, values: dict[str, Any]) -> "PeftKindConfig":
        """The configuration of ``{"kind": "peft:LORA", field: value, ...}`` without its kind."""
        own = {key: values[key] for key in ("stacks", "layers") if key in values}
        options = {key: value for key, value in values.items() if key not in own}
        return cls(peft_type=kind.removeprefix(PREFIX), options=options, **own)

    def to_dict(self) -> dict[str, Any]:
        own = {"stacks": list(self.stacks), "layers": None if self.layers is None else list(self.layers)}
        return {"kind": self.kind, **own, **self.options}

    def peft_config(self, targets: list[str] | str, outputs: Sequence[str] = ()) -> Any:
        """PEFT's configuration for these target modules.

        Args:
            targets: names or paths, or a regular expression for whole paths.
            outputs: paths of the last linears of feed-forward sublayers among them, which IA3 treats in its own way.

        Raises:
            ConfigurationError: PEFT raised an error, which is quoted.
        """
        values = {**STARTS.get(self.peft_type, {}), **self.options, "target_modules": targets}
        if self.peft_type == "IA3" and values.get("feedforward_modules") is None:
            values["feedforward_modules"] = list(outputs)
        with self._peft_errors():
            return config_class_of(self.peft_type)(**values)

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        """The linears, or layer norms for LN_TUNING, of the chosen stacks and layers that PEFT's rules match."""
        known = self._candidates(sublayers)
        config = self._config_for(known)
        tuner_class = tuner_class_of(self.peft_type)
        found = [place for place in known if tuner_class._check_target_module_exists(config, place.path)]
        targets = config.target_modules
        for name in sorted(targets) if isinstance(targets, list | set | tuple) else []:
            if not any(f".{place.path}".endswith(f".{name}") for place in known):
                rule = "names modules of the chosen stacks and layers"
                names = {place.path.rpartition(".")[2] for place in known}
                self.refuse("target_modules", rule, repr(name), nearest_name(name, names))
        if not found:
            rule = f"as a string is a pattern for whole paths such as {known[0].path}"
            fix = "write a list of names, or a pattern that matches some"
            self.refuse("target_modules", rule, f"{targets!r}, which matches none", fix)
        return found

    def build_together(self, bases: dict[str, nn.Module], places: list[Place]) -> dict[str, PeftAdapter]:
        """The adapters of all places, which may share tensors.

        Args:
            bases: the model's linears or layer norms by path, adapted or not; they are left as they are.
            places: their places.

        Raises:
            ConfigurationError: PEFT raised an error about sizes or values, which is quoted.
        """
        stand_in = nn.Module()
        for path, base in bases.items():
            _put(stand_in, path, _copy_of(base))
        config = self._config_for(places)
        with self._peft_errors():
            tuner_class_of(self.peft_type)(stand_in, config, PEFT_NAME)
        adapter_class = PeftNormAdapter if self.peft_type in NORM_TYPES else PeftLinearAdapter
        adapters = {path: adapter_class(stand_in.get_submodule(path)) for path in bases}
        reason = next(iter(adapters.values())).unmergeable_reason()
        for adapter in adapters.values():
            adapter.not_linear_because = reason
            adapter.release_base()
        return adapters

    def _candidates(self, sublayers: list[Sublayer]) -> list[Place]:
        if self.peft_type in NORM_TYPES:
            return norms(self, sublayers)
        if self.options.get("target_modules") is None:
            select_sublayers(self, sublayers)  # refuses an unknown architecture
        return [Place(s.linears[name], "around", s, name) for s, name in candidates(self, sublayers)]

    def _config_for(self, places: list[Place]) -> Any:
        """PEFT's configuration with the target modules among these places: those given, or the default."""
        targets = self.options.get("target_modules")
        roles = {place.path: place.sublayer.roles.get(place.projection) for place in places}
        if targets is None:
            targets = self._default_targets(places, roles)
        elif is_all_linear(targets):
            targets = list(roles)
        elif not isinstance(targets, str):
            targets = roles_as_paths(targets, [place.sublayer for place in places], list(roles))
        return self.peft_config(targets, [path for path in roles if roles[path] == "out" and path in targets])

    def _default_targets(self, places: list[Place], roles: dict[str, str | None]) -> list[str]:
        if self.peft_type in NORM_TYPES:
            return list(roles)
        if self.peft_type == "IA3":
            return [path for path, role in roles.items() if role in ("k", "v", "qkv", "out")]
        return [place.path for place in places if place.sublayer.kind == "feed_forward"]

    @contextmanager
    def _peft_errors(self) -> Iterator[None]:
        """Turn PEFT's errors about values and sizes into one sentence, and its warnings into log messages."""
        # PEFT warns about layer norms because it does not know their class
        level = logging.INFO if self.peft_type in NORM_TYPES else logging.WARNING
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                yield
            for message in dict.fromkeys(str(warning.message) for warning in warned):
                logger.log(level, "PEFT warns about adapter kind %r: %s", self.kind, message)
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(
                f"Adapter kind {self.kind!r} takes values and sizes that PEFT accepts; got {self.options}, for which "
                f"PEFT raises: {words.rstrip('.')}: change that value, or the modules that it does not fit."
            ) from error


def _copy_of(base: nn.Module) -> nn.Module:
    """A plain module with the base's unmerged tensors, in float32 at least so that PEFT's are float32 too."""
    is_linear = isinstance(base, LINEAR_CLASSES)
    copy = _linear_like(base) if is_linear else plain_norm(base)
    for name in [name for name, _ in copy.named_parameters()]:
        tensor = base.base_tensor(name) if isinstance(base, KeptBase) else getattr(base, name).detach()
        tensor = as_out_in(base, tensor) if is_linear and name == "weight" else tensor
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        setattr(copy, name, nn.Parameter(tensor, requires_grad=False))
    return copy.train(base.training)


def _linear_like(base: nn.Module) -> nn.Linear:
    """An ``nn.Linear`` of the sizes of a linear of any class, without memory."""
    in_features, out_features = features(base)
    return nn.Linear(in_features, out_features, bias=base.bias is not None, device="meta")


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    """Add ``module`` at ``path`` below ``root``, and empty modules for the missing parts of the path."""
    *above, last = path.split(".")
    for name in above:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root._modules[name]
    root.add_module(last, module)
