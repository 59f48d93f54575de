"""What a person chooses: the fields of the kind tt_lora, and where PEFT puts the deltas.

The tensor-train fields mean, and are checked, as in ``adapters.TensorTrainLoRAConfig``. Where deltas sit is said in
PEFT's own way, because PEFT serves any architecture: ``target_modules`` and the fields after it below.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftType

from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.peft.card import extend_card

METHOD = "tt_lora"
PREFIX = f"{METHOD}_"


@dataclass
class TensorTrainConfig(PeftConfig):
    """A TT delta beside linears, for ``peft.get_peft_model``.

    Args:
        format, basis_size, modes, rank, rank_pattern, d, raw_shape, shape_pattern, shape_mode, init, zero_core,
            frozen_cores, disabled_cores, shared_cores, share_across, core_activation, scaling, dropout: as in
            ``adapters.TensorTrainLoRAConfig``. Sizes need no padding: a prime is not split, so that it stands whole in
            one core. Which layer and which kind of matrix a linear belongs to is told from its path, see
            ``adapters.peft.sites``; there are no tasks, as PEFT has adapters by name for them.
        bias: "none", "dense" or "tt", a bias of the delta's own; PEFT's sense, the base's biases, is not meant.
        target_modules: ends of the linears' paths, or a pattern for whole paths, or "all-linear"; None for the
            feed-forward linears of a T5 and, in other architectures, those that LoRA takes.
        exclude_modules: ends of paths, or a pattern, to leave out.
        layers_to_transform: numbers of the layers that take deltas; None for all.
        layers_pattern: name of the list that these numbers count in, where it is not the first numbered one.
        modules_to_save: modules that train as a whole and are saved too, such as a new classification head.

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
    bias: str = "none"
    scaling: float = 1.0
    dropout: float = 0.0
    target_modules: str | list[str] | set[str] | None = None
    exclude_modules: str | list[str] | set[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType(METHOD.upper())
        checked = self.to_adapter_config().to_dict()
        for name in self._tensor_train_fields():
            setattr(self, name, checked[name])

    def to_adapter_config(self) -> TensorTrainLoRAConfig:
        """The same deltas as a configuration of the kind tt_lora, which checks the values and builds the modules."""
        config = TensorTrainLoRAConfig(**{name: getattr(self, name) for name in self._tensor_train_fields()})
        for key, word in (("modes", "task"), ("share_across", "tasks")):
            if word in (getattr(config, key) or ()):
                mend = "leave it out, and add an adapter for each task"
                config.refuse(
                    key, f"takes no {word!r} in PEFT, where adapters have names", list(getattr(config, key)), mend
                )
        return config

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; sets as sorted lists, so that equal configurations are written as equal bytes."""
        return {key: sorted(value) if isinstance(value, set) else value for key, value in super().to_dict().items()}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write adapter_config.json; where an adapter and its README.md are there, say in it how it is loaded."""
        super().save_pretrained(save_directory, **kwargs)
        extend_card(Path(save_directory), self)

    def _tensor_train_fields(self) -> list[str]:
        """Names that both configurations have, without the one whose meaning differs."""
        known = {field.name for field in fields(TensorTrainLoRAConfig)} - {"target_modules"}
        return [field.name for field in fields(self) if field.name in known]
