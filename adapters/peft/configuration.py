"""The configuration of the PEFT tuner: the fields of the kind tt_lora, and PEFT's fields for the target modules.

The tensor-train fields have the meaning and the checks of ``adapters.TensorTrainLoRAConfig``. The target modules are
chosen by PEFT's own fields, as PEFT adapts any architecture: ``target_modules`` and the fields after it below.
"""

import copy
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftType

from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.peft.base_weights import BaseWeightsMixin
from adapters.peft.card import extend_card
from adapters.peft.selection import WHERE, check_values
from adapters.saved.files import set_default_mode
from adapters.saved.folder import with_delta_bias
from adapters.tensor_train.principal import PRINCIPAL
from adapters.tensor_train.scaling import AUTO
from adapters.validation import nearest_name, refuse

METHOD = "tt_lora"
PREFIX = f"{METHOD}_"
DELTA_DTYPES = ("float32", "base")
OF_A_MODEL = ("scaling", "scaling_pattern", "target_modules")
"""Fields whose names, such as "auto" and "all-linear", become those of a model."""
SETTLED = "_before_and_after_settling"
"""Attribute with the values of these fields before and after a model was adapted."""
INSTEAD = {
    "stacks": r"write target_modules as a pattern for whole paths, such as 'encoder\..*\.wi'",
    "layers": "use layers_to_transform",
    "sublayers": r"write target_modules as a pattern for whole paths, such as '.*\.SelfAttention\.[qv]'",
    "loops": "use adapters.attach on the looped model",
}
"""What PEFT has in place of fields of the kind tt_lora that this configuration lacks."""


@dataclass
class TensorTrainConfig(BaseWeightsMixin, PeftConfig):
    """A TT delta beside linears, for ``peft.get_peft_model``.

    Args:
        format, basis_size, modes, rank, rank_pattern, d, raw_shape, shape_pattern, shape_mode, init, zero_core: as in
            ``adapters.TensorTrainLoRAConfig``. No size is padded: a prime is not split, so it stays in a single core.
            The layer and the kind of matrix of a linear are read from its path, see ``adapters.peft.sites``; there are
            no tasks, as PEFT has named adapters for them.
        frozen_cores, disabled_cores, shared_cores, share_across, core_activation, scaling, scaling_pattern, dropout: as
            there; the numbers that "auto" stands for are in ``peft_config`` of the adapted model.
        delta_bias: as there.
        init_weights: PEFT's, whether the deltas start at zero; with False all cores are random, as tests need them.
        bias: PEFT's, the biases of the base that train too: "none", "all", or "tt_lora_only", those of the target
            modules. Disabling the adapter does not bring their earlier values back. Folders of earlier versions, where
            it was the delta's bias ("dense", "tt"), are read with a warning.
        delta_dtype: "float32", whatever the base's dtype; or "base" for that dtype, as FSDP1 needs, where weights of
            a block are one flat parameter. Small updates are rounded away then.
        target_modules: ends of the linears' paths, their roles in known architectures (q, k, v, o, in, gate, out, see
            ``adapters.base.layout``), a pattern for whole paths, or "all-linear"; None for the feed-forward linears of
            a T5 and, in other architectures, for the targets of LoRA.
        target_parameters: ends of the paths of stacks of expert weights, such as "experts.gate_up_proj"; each expert
            has its own delta, or with the mode "expert" a slice of one tensor. Then None for target_modules is none.
        exclude_modules: ends of paths, or a pattern, to leave out.
        layers_to_transform: numbers of the layers with deltas; None for all.
        layers_pattern: name of the list that these numbers count in; by default the first numbered one.
        modules_to_save: modules that train as a whole and are saved too, such as a new classification head.
        kind, stacks, layers, sublayers, loops: not stored; keys of a description ``{"kind": "tt_lora", ...}``, such as
            one of ``adapters.published``, which can be given as ``TensorTrainConfig(**description)``. PEFT has other
            fields for the last four, or none, so they are refused unless they are None.

    Raises:
        ConfigurationError: a tensor-train field has a value that does not fit.
    """

    format: str = "tensor_train"
    basis_size: int | None = None
    modes: Sequence[str] | None = None
    rank: int | Sequence[int] = 8
    rank_pattern: dict[str, int | Sequence[int]] | None = None
    d: int | None = None
    raw_shape: Sequence[Sequence[int]] | None = None
    shape_pattern: dict[str, Sequence[Sequence[int]]] | None = None
    shape_mode: str | None = None
    init: str | float = "glorot"
    zero_core: int | None = None
    frozen_cores: Sequence[int] = ()
    disabled_cores: Sequence[int] = ()
    shared_cores: Sequence[int] = ()
    share_across: Sequence[str] = ("layers",)
    core_activation: str | None = None
    delta_bias: str = "none"
    init_weights: bool = True
    bias: str = "none"
    scaling: float | str = AUTO
    scaling_pattern: dict[str, float] | None = None
    dropout: float = 0.0
    delta_dtype: str = "float32"
    target_modules: str | list[str] | set[str] | None = None
    target_parameters: list[str] | None = None
    exclude_modules: str | list[str] | set[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    modules_to_save: list[str] | None = None
    kind: InitVar[str] = METHOD
    stacks: InitVar[Any] = None
    layers: InitVar[Any] = None
    sublayers: InitVar[Any] = None
    loops: InitVar[Any] = None

    def __post_init__(self, kind: str, stacks: Any, layers: Any, sublayers: Any, loops: Any) -> None:
        super().__post_init__()
        if kind != METHOD:
            refuse(
                "kind", f"must be {METHOD!r}, the kind of this tuner", repr(kind), "use adapters.attach for it", WHERE
            )
        for key, value in {"stacks": stacks, "layers": layers, "sublayers": sublayers, "loops": loops}.items():
            if value is not None:
                refuse(key, "is not supported by the PEFT tuner", value, INSTEAD[key], WHERE)
        if self.delta_dtype not in DELTA_DTYPES:
            fix = nearest_name(str(self.delta_dtype), DELTA_DTYPES)
            refuse("delta_dtype", f"must be one of {list(DELTA_DTYPES)}", repr(self.delta_dtype), fix, WHERE)
        self._read_earlier_bias()
        check_values(self)
        if self.target_parameters is not None and self.target_modules is None:
            self.target_modules = []
        if self.target_parameters is not None:
            self.target_parameters = sorted(self.target_parameters)
        for key, value in {"zero_core": self.zero_core, "init": self.init}.items():
            if not self.init_weights and value is not None and (key == "zero_core" or value == PRINCIPAL):
                rule, given = "must be true for deltas that start at zero", f"false with {key}={value!r}"
                refuse("init_weights", rule, given, "leave one of the two out", WHERE)
        if self.modules_to_save is not None:
            self.modules_to_save = list(self.modules_to_save)  # PEFT extends it
        self.peft_type = PeftType(METHOD.upper())
        checked = self.to_adapter_config().to_dict()
        for name in self._tensor_train_fields():
            setattr(self, name, checked[name])

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self.__dict__.pop("_adapter_config", None)  # checked again by its next use

    def to_adapter_config(self) -> TensorTrainLoRAConfig:
        """The same deltas as a configuration of the kind tt_lora, which checks the values and builds the modules.

        It is created once, and again after a field has been set.
        """
        return self._adapter_config

    @cached_property
    def _adapter_config(self) -> TensorTrainLoRAConfig:
        config = TensorTrainLoRAConfig(**{name: getattr(self, name) for name in self._tensor_train_fields()})
        if "loop" in (config.modes or ()):
            config.refuse("modes", "has no loops in PEFT", list(config.modes), INSTEAD["loops"])
        for key, word, value in (("modes", "task", config.modes), ("share_across", "tasks", config.share_across)):
            if word in (value or ()):
                rule = f"must not contain {word!r} in PEFT, where adapters have names"
                config.refuse(key, rule, list(value), "leave it out, and add an adapter for each task")
        return config

    def _read_earlier_bias(self) -> None:
        current = with_delta_bias({"bias": self.bias, "delta_bias": self.delta_bias})
        if current["bias"] != self.bias:
            warnings.warn(
                f"Key 'bias' of {WHERE} is PEFT's now, and the bias of the deltas is called 'delta_bias'; got "
                f"{self.bias!r} under the earlier name, which is read all the same: write delta_bias={self.bias!r}, or "
                "save the adapter again.",
                FutureWarning,
                stacklevel=4,
            )
            self.bias, self.delta_bias = current["bias"], current["delta_bias"]

    def before_settling(self) -> "TensorTrainConfig":
        """Return this configuration; or, if it has the numbers that a scaling's name stands for in a model, a copy.

        The copy is as this one was before that model, but for fields set since. The first model needs this one itself,
        as PEFT goes on changing the configuration that it was given.
        """
        before, after = vars(self).get(SETTLED, ({}, {}))
        if not before:
            return self
        anew = copy.copy(self)
        for name, value in before.items():
            if getattr(self, name) == after[name]:
                setattr(anew, name, value)
        del vars(anew)[SETTLED]
        vars(anew).pop("_noted_bases", None)
        return anew

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Note which fields change inside, where a model is adapted, if the scaling is a name."""
        before = {name: getattr(self, name) for name in OF_A_MODEL} if isinstance(self.scaling, str) else {}
        yield
        if before:
            self.__dict__[SETTLED] = before, {name: getattr(self, name) for name in OF_A_MODEL}

    def settle(self, settled: TensorTrainLoRAConfig) -> None:
        """Take over the numbers that the name of a scaling stands for in a model."""
        self.scaling, self.scaling_pattern = settled.scaling, settled.scaling_pattern
        self.__dict__["_adapter_config"] = settled

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with sets as sorted lists, so that equal configurations give equal files."""
        return {key: sorted(value) if isinstance(value, set) else value for key, value in super().to_dict().items()}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write adapter_config.json, a sample of the base beside a saved adapter, and in README.md how to load it."""
        super().save_pretrained(save_directory, **kwargs)
        folder = Path(save_directory)
        set_default_mode(*folder.glob("*.safetensors"))  # PEFT has written them
        self.write_base(folder)
        extend_card(folder, self)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike, subfolder: str | None = None, **kwargs: Any) -> PeftConfig:
        """Read a folder's configuration, and the sample of the base weights that its adapter was trained on."""
        config = super().from_pretrained(path, subfolder, **kwargs)
        if isinstance(config, TensorTrainConfig):
            config.read_base(Path(path, subfolder or ""))
        return config

    def _tensor_train_fields(self) -> list[str]:
        """Names of the fields of both configurations, but for those that name modules, which PEFT reads itself."""
        known = {field.name for field in fields(TensorTrainLoRAConfig)} - {"target_modules", "exclude_modules"}
        return [field.name for field in fields(self) if field.name in known]
