"""peft:<TYPE>: the methods that PEFT has, as kinds; what it does well is not written again.

    {"kind": "peft:LORA", "r": 8, "lora_alpha": 16, "target_modules": ["wi", "wo"], "stacks": ["decoder"]}

The fields are those of PEFT's configuration of that type, beside ``stacks`` and ``layers`` of every kind. PEFT injects
its layers into a stand-in that has the targeted modules at their paths and nothing else, so the model is touched only
after PEFT has accepted everything; ``adapters.kinds.of_peft.layers`` says how its layers then sit in the model.

PEFT is an optional dependency, imported when the first such kind is read.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, get_type_hints

import torch
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters.base.mergeable import Mergeable
from adapters.base.places import Place
from adapters.base.sublayers import Sublayer, select_sublayers
from adapters.configuration import AdapterConfig
from adapters.kinds.of_peft.layers import PEFT_NAME, PeftAdapter, PeftLinearAdapter, PeftNormAdapter
from adapters.kinds.of_peft.types import (
    FAMILY,
    PREFIX,
    STARTS,
    ZERO_START_NAMES,
    config_class_of,
    refusal_of_key,
    tuner_class_of,
)
from adapters.validation import ConfigurationError, check_keys, check_type, nearest_name

logger = logging.getLogger(__name__)

NORM_TYPES = ("LN_TUNING",)
FEED_FORWARD = ("wi", "wi_0", "wi_1", "wo")


@dataclass(frozen=True, kw_only=True)
class PeftKindConfig(AdapterConfig, kind=FAMILY):
    """One method of PEFT with the fields given.

    Args:
        peft_type: a member of PEFT's PeftType.
        options: fields of its configuration, checked against it. ``target_modules`` left out means the feed-forward
            linears; k, v and wo for IA3 and the layer norms for LN_TUNING, as those methods are defined.
    """

    position = "around"
    reads_weights = True
    sublayers: ClassVar[tuple[str, ...]] = ("self_attention", "cross_attention", "feed_forward", "final")

    peft_type: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config_class = config_class_of(self.peft_type)
        object.__setattr__(self, "kind", PREFIX + self.peft_type)
        super().__post_init__()
        hints = get_type_hints(config_class)
        known = {entry.name for entry in fields(config_class) if entry.init}
        for key, value in self.options.items():
            if key in known and (reason := refusal_of_key(key)):
                self.refuse(key, reason, repr(value), "leave it out")
        check_keys(
            self.options,
            [*(key for key in known if not refusal_of_key(key)), "stacks", "layers"],
            f"adapter kind {self.kind!r}",
        )
        for key, value in self.options.items():
            check_type(key, value, hints[key], f"adapter kind {self.kind!r}")
        if (start := self.options.get("init_lora_weights", True)) not in ZERO_START_NAMES:
            rule = "leaves the base model's weights as they are"
            self.refuse("init_lora_weights", rule, repr(start), 'true or "gaussian" would do')
        for key in ("target_modules", "exclude_modules"):
            if isinstance(pattern := self.options.get(key), str):
                self._check_pattern(key, pattern)
        if self.options.get("target_modules") == []:
            self.refuse("target_modules", "takes at least one name", "an empty list", "leave it out for the default")
        self.peft_config({"wo"})

    @classmethod
    def from_fields(cls, kind: str, values: dict[str, Any]) -> "PeftKindConfig":
        """The configuration of ``{"kind": "peft:LORA", field: value, ...}`` without its kind."""
        own = {key: values[key] for key in ("stacks", "layers") if key in values}
        options = {key: value for key, value in values.items() if key not in own}
        return cls(peft_type=kind.removeprefix(PREFIX), options=options, **own)

    def to_dict(self) -> dict[str, Any]:
        own = {"stacks": list(self.stacks), "layers": None if self.layers is None else list(self.layers)}
        return {"kind": self.kind, **own, **self.options}

    def peft_config(self, names: set[str]) -> Any:
        """PEFT's configuration, for a model whose modules have these names.

        Raises:
            ConfigurationError: PEFT refuses it, in PEFT's words.
        """
        values = {**STARTS.get(self.peft_type, {}), **self.options}
        targets = values.get("target_modules")
        if targets is None:
            targets = self._default_targets(names)
        elif isinstance(targets, str) and targets.lower() == "all-linear":
            targets = sorted(names)
        values["target_modules"] = targets
        if self.peft_type == "IA3" and values.get("feedforward_modules") is None:
            values["feedforward_modules"] = [name for name in targets if name == "wo"]
        with self._words_of_peft():
            return config_class_of(self.peft_type)(**values)

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        """The linears (the layer norms for LN_TUNING) in the chosen stacks and layers that PEFT's matching finds."""
        candidates = self._candidates(sublayers)
        config = self.peft_config(self._names(candidates))
        tuner_class = tuner_class_of(self.peft_type)
        found = [place for place in candidates if tuner_class._check_target_module_exists(config, place.path)]
        targets = config.target_modules
        for name in sorted(targets) if isinstance(targets, list | set | tuple) else []:
            if not any(f".{place.path}".endswith(f".{name}") for place in candidates):
                rule = "names modules of the chosen stacks and layers"
                self.refuse("target_modules", rule, repr(name), nearest_name(name, self._names(candidates)))
        if not found:
            rule = "as a string is a pattern for whole paths such as encoder.block.0.layer.1.DenseReluDense.wi"
            mend = "write a list of names, or a pattern that finds some"
            self.refuse("target_modules", rule, f"{targets!r}, which finds none", mend)
        return found

    def build_together(self, bases: dict[str, nn.Module]) -> dict[str, PeftAdapter]:
        """The adapters of all places, which may have tensors in common.

        Args:
            bases: the model's modules by path, nn.Linear or T5LayerNorm, adapted or not; they are left as they are.

        Raises:
            ConfigurationError: PEFT refuses the sizes or values, in PEFT's words.
        """
        stand_in = nn.Module()
        stand_in.config = {"model_type": "t5"}
        for path, base in bases.items():
            _put(stand_in, path, _copy_of(base))
        config = self.peft_config({path.rpartition(".")[2] for path in bases})
        with self._words_of_peft():
            tuner_class_of(self.peft_type)(stand_in, config, PEFT_NAME)
        adapter_class = PeftNormAdapter if self.peft_type in NORM_TYPES else PeftLinearAdapter
        adapters = {path: adapter_class(stand_in.get_submodule(path)) for path in bases}
        refusal = next(iter(adapters.values())).refusal_to_merge()
        for adapter in adapters.values():
            adapter.not_linear_because = refusal
            adapter.forget_base()
        return adapters

    def _candidates(self, sublayers: list[Sublayer]) -> list[Place]:
        chosen = select_sublayers(self, sublayers)
        if self.peft_type in NORM_TYPES:
            return [Place(sublayer.norm, "replacement", sublayer) for sublayer in chosen]
        return [
            Place(path, "around", sublayer, name)
            for sublayer in chosen
            if sublayer.kind != "final"  # the head's weight may be the embedding's too
            for name, path in sublayer.linears.items()
        ]

    def _default_targets(self, names: set[str]) -> list[str]:
        if self.peft_type in NORM_TYPES:
            return sorted(names)
        return [name for name in (("k", "v", "wo") if self.peft_type == "IA3" else FEED_FORWARD) if name in names]

    @staticmethod
    def _names(places: list[Place]) -> set[str]:
        return {place.path.rpartition(".")[2] for place in places}

    def _check_pattern(self, key: str, pattern: str) -> None:
        try:
            re.compile(pattern)
        except re.error as error:
            self.refuse(key, "as a string is a regular expression for whole paths", f"{pattern!r} ({error})", "mend it")

    @contextmanager
    def _words_of_peft(self) -> Iterator[None]:
        """Turn what PEFT raises about values and sizes into one sentence, and its warnings into lines of the log."""
        level = logging.INFO if self.peft_type in NORM_TYPES else logging.WARNING  # it does not know T5's norm
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                yield
            for message in dict.fromkeys(str(warning.message) for warning in warned):
                logger.log(level, "PEFT about adapter kind %r: %s", self.kind, message)
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(
                f"Adapter kind {self.kind!r} takes values and sizes that PEFT accepts; got {self.options}, about "
                f"which PEFT says: {words.rstrip('.')}: change that value, or the modules that it does not fit."
            ) from error


def _copy_of(base: nn.Module) -> nn.Module:
    """A plain module with the base's untouched tensors, float32 at least, so that PEFT's own become float32 too."""
    if isinstance(base, nn.Linear):
        copy = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    else:
        copy = T5LayerNorm(len(base.weight), base.variance_epsilon)
    for name in [name for name, _ in copy.named_parameters()]:
        tensor = base.base_tensor(name) if isinstance(base, Mergeable) else getattr(base, name).detach()
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        setattr(copy, name, nn.Parameter(tensor, requires_grad=False))
    return copy.train(base.training)


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    """Let ``module`` stand at ``path`` below ``root``, with empty modules above it where none are."""
    *above, last = path.split(".")
    for name in above:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root._modules[name]
    root.add_module(last, module)
