"""summary: trainable parameters by group and by layer, their bytes, the cores, and what cannot be merged."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from adapters.base.heads import head_parameters
from adapters.base.norm_layers import is_norm
from adapters.base.sharing import in_words, scopes_of
from adapters.base.sublayers import layer_of
from adapters.configuration import AdapterConfig
from adapters.core_settings import HEADER, CoreSetting, core_settings, settings_rows
from adapters.freezing import adapter_parameters, model_parameters
from adapters.injection import attachments
from adapters.merging import non_linear_adapters
from adapters.tables import render_table


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of one group, how many of them are trainable, and the bytes of both."""

    parameters: int = 0
    trainable: int = 0
    bytes: int = 0
    trainable_bytes: int = 0

    def plus(self, parameter: nn.Parameter) -> "ParameterCount":
        size = parameter.numel() * parameter.element_size()
        return ParameterCount(
            self.parameters + parameter.numel(),
            self.trainable + parameter.numel() * parameter.requires_grad,
            self.bytes + size,
            self.trainable_bytes + size * parameter.requires_grad,
        )


@dataclass(frozen=True)
class Summary:
    """Parameter counts of a model: in total, of its base, by group and by layer.

    The groups are the base weights, the layer norms, the head of a task (not a part of the base), each adapter, and the
    parameters that modules of an adapter share. A module names groups of its own in ``parameter_groups``, by parameter.
    ``cores`` has the settings of the cores of tensor-train adapters, each with the number of modules that have it;
    ``cannot_be_merged`` names the adapters that are not linear.
    """

    total: ParameterCount
    base: ParameterCount
    groups: dict[str, ParameterCount]
    layers: dict[str, ParameterCount]
    cannot_be_merged: list[str]
    cores: dict[CoreSetting, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Trainable parameters as a share of the base model's parameters."""
        return self.total.trainable / self.base.parameters

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameters": self.total.parameters,
            "base_parameters": self.base.parameters,
            "trainable_parameters": self.total.trainable,
            "trainable_bytes": self.total.trainable_bytes,
            "share": self.share,
            "cannot_be_merged": self.cannot_be_merged,
            "groups": {name: vars(count) for name, count in self.groups.items()},
            "layers": {name: vars(count) for name, count in self.layers.items()},
            "cores": [
                {**asdict(setting), "shape": list(setting.shape), "modules": modules}
                for setting, modules in self.cores.items()
            ],
        }

    def __str__(self) -> str:
        header = ["", "parameters", "trainable", "share of base", "trainable bytes"]
        by_group = render_table("Parameters by group", header, [self._row(*item) for item in self.groups.items()])
        by_layer = render_table("Parameters by layer", header, [self._row(*item) for item in self.layers.items()])
        total = render_table("In total", header, [self._row("model", self.total)])
        parts = [by_group, by_layer, total]
        if self.cores:
            parts.append(render_table("Cores", HEADER, settings_rows(self.cores)))
        if self.cannot_be_merged:
            parts.append(f"Cannot be merged: {', '.join(self.cannot_be_merged)}")
        return "\n\n".join(parts)

    def _row(self, name: str, count: ParameterCount) -> list[str]:
        share = count.trainable / self.base.parameters
        return [name, f"{count.parameters:,}", f"{count.trainable:,}", f"{share:.4%}", f"{count.trainable_bytes:,}"]


def summary(model: nn.Module) -> Summary:
    """Count the parameters of ``model``; a parameter with several names is counted once, under the first."""
    of_adapters = adapter_parameters(model)
    norms = {path for path, module in model.named_modules() if is_norm(module)}
    head = set(head_parameters(model))
    own = {
        f"{path}.{name}".lstrip("."): group
        for path, module in model.named_modules()
        for name, group in getattr(module, "parameter_groups", {}).items()
    }
    configs = {a.name: a.config for a in attachments(model) if a.config.position != "weights"}
    total, base = ParameterCount(), ParameterCount()
    groups: dict[str, ParameterCount] = {}
    layers: dict[str, ParameterCount] = {}
    for name, parameter in model_parameters(model).items():
        total = total.plus(parameter)
        if name in of_adapters:
            group = _adapter_group(name, configs)
        elif name in own:
            group = own[name]
        elif name in head:
            group = "head"
        else:
            group = "layer norms" if name.rpartition(".")[0] in norms else "base weights"
            base = base.plus(parameter)
        groups[group] = groups.get(group, ParameterCount()).plus(parameter)
        layer = layer_of(name)
        layers[layer] = layers.get(layer, ParameterCount()).plus(parameter)
    return Summary(total, base, groups, layers, non_linear_adapters(model), core_settings(model))


def _adapter_group(name: str, configs: dict[str, AdapterConfig]) -> str:
    """The adapter of a parameter: the first in its path, as a task may have the name of another adapter."""
    if name.startswith("shared_parameters."):
        key = name.partition(".")[2]
        adapter = key.partition("-")[0]
        return f"{adapter}, shared across {in_words(scopes_of(configs[adapter], key))}"
    return next(part for part in name.split(".") if part in configs)
