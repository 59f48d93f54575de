"""The shape and state of every core of the tensor-train adapters, equal ones in one row.

adapter   place   format         core   shape (r, m, n, s)   modules   state
tt_lora   wi      tensor_train   0      1x12x8x8             24        trains, shared across layers
tt_lora   wi      tensor_train   1      8x16x8x8             24        frozen
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from adapters.base.loops import split_loop
from adapters.base.sharing import in_words
from adapters.injection import attachments
from adapters.merging import adapted_modules
from t3nsor.module import TTModule


@dataclass(frozen=True)
class CoreSetting:
    """One core, as several modules have it.

    Args:
        adapter: the attachment's name.
        place: the name of the adapted module, and the part of the adapter (down, up, bias) if it has several.
        format: the tensor format, and the activation between its cores, if any.
        core: the index, or "core tensor" in the format tucker.
        shape: (r_{k-1}, m_k, n_k, r_k), or (r_1, ..., r_d) of a core tensor.
        state: whether it trains, is frozen or disabled, and across what it is shared.
    """

    adapter: str
    place: str
    format: str
    core: int | str
    shape: tuple[int, ...]
    state: str


HEADER = ["adapter", "place", "format", "core", "shape", "modules", "state"]


def core_settings(model: nn.Module) -> dict[CoreSetting, int]:
    """The settings of all cores, in the order of attachment, each with the number of modules that have it."""
    names = [attachment.name for attachment in attachments(model)]
    counted = Counter(_settings(model))
    return {setting: counted[setting] for setting in sorted(counted, key=lambda setting: names.index(setting.adapter))}


def settings_rows(settings: dict[CoreSetting, int]) -> list[list[str]]:
    """The rows of the table with the columns ``HEADER``."""
    return [
        [s.adapter, s.place, s.format, str(s.core), "x".join(map(str, s.shape)), str(modules), s.state]
        for s, modules in settings.items()
    ]


def _settings(model: nn.Module) -> Iterator[CoreSetting]:
    configs = {attachment.name: attachment.config for attachment in attachments(model)}
    for path, host in adapted_modules(model):
        for controller_path, controller in host.named_controllers():
            name = controller_path.rpartition(".")[2]
            for adapter in controller.tasks.values():
                for inner_path, layer in adapter.named_modules():
                    if isinstance(layer, TTModule):
                        parts = [path.rpartition(".")[2], *split_loop(inner_path)[1].split(".")]
                        place = " ".join(part for part in parts if part not in ("", "linear"))
                        yield from _of_layer(name, place, layer, configs[name])


def _of_layer(name: str, place: str, layer: TTModule, config: Any) -> Iterator[CoreSetting]:
    activation = getattr(layer, "core_activation", None)
    form = layer.format if activation is None else f"{layer.format}, {activation}"
    for k, shape in enumerate(layer.core_shapes):
        yield CoreSetting(name, place, form, k, tuple(shape), _state(layer, k, config))
    for core_tensor in layer.cores.joint_parameters():
        yield CoreSetting(name, place, form, "core tensor", tuple(core_tensor.shape), "trains")


def _state(layer: TTModule, k: int, config: Any) -> str:
    if k in layer.disabled_cores:
        return "disabled"
    state = "frozen" if k in layer.frozen_cores else "trains"
    mode = config.site_mode(k)
    if mode is not None and layer.shareable():
        state += f", a slice for each {mode}"
    for slot in layer.cores.slots(k):
        if layer.format == "tensor_basis":
            state += f", from {len(layer.cores.read(slot))} basis cores"
        if layer.cores.is_shared(k):
            state += f", shared across {in_words(config.shared_slots()[slot])}"
    return state
