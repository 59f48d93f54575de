"""attach: put adapters into a model, freeze the rest.

One walk: the configuration names sublayers; in each, the places are

    position "beside"    the linears named by target_modules          -> AdaptedLinear.beside
    position "after"     the linear at the end of the sublayer        -> AdaptedLinear.after
    position "norm"      the sublayer's layer norm                    -> AdaptedLayerNorm.replacement
    position "weights"   none: the kind decides only which of the model's own parameters train

Everything that can be refused is refused before the model is touched.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import t3nsor as t3
from adapters.adapted_linear import AdaptedLinear
from adapters.configuration import AdapterConfig
from adapters.controller import ALL_TASKS, AdapterController
from adapters.freezing import freeze
from adapters.layer_norm import AdaptedLayerNorm
from adapters.sublayers import Sublayer, find_sublayers, select_sublayers
from adapters.validation import ConfigurationError, nearest_name


@dataclass(frozen=True)
class Attachment:
    """One configuration attached for one task (None: for all); ``name`` is its key in every place it sits."""

    name: str
    task: str | None
    config: AdapterConfig

    def to_dict(self) -> dict[str, Any]:
        return {"task": self.task, "config": self.config.to_dict()}


@dataclass(frozen=True)
class Place:
    """A module path that takes an adapter; places of one ``role`` share their shared cores."""

    path: str
    role: str


def as_configs(config: Any) -> list[AdapterConfig]:
    """An AdapterConfig, its dictionary, or a list of either, as a list of AdapterConfig."""
    entries = config if isinstance(config, list | tuple) else [config]
    return [entry if isinstance(entry, AdapterConfig) else AdapterConfig.from_dict(entry) for entry in entries]


def attachments(model: nn.Module) -> list[Attachment]:
    """What is attached to the model, in order."""
    return list(getattr(model, "adapter_attachments", []))


def attach(model: nn.Module, config: Any, task: str | None = None) -> nn.Module:
    """Put the adapters of ``config`` into ``model``, freeze its other parameters, and return the same model.

    Args:
        model: a T5 with its weights loaded (or on the meta device, to be loaded later).
        config: an ``AdapterConfig``, its dictionary form, or a list of them, which compose.
        task: the task these adapters belong to; None for all tasks.

    Raises:
        ConfigurationError: a configuration does not fit this model. The model is as it was.
    """
    if task is not None and (not task or "." in task or task == ALL_TASKS):
        raise ConfigurationError(
            f"A task's name is not empty, has no dot and is not {ALL_TASKS!r}; given was {task!r}: rename the task."
        )
    sublayers = find_sublayers(model)
    planned: list[tuple[Attachment, list[tuple[Place, nn.Module]]]] = []
    for entry in as_configs(config):
        attachment = Attachment(_free_name(model, entry, task, planned), task, entry)
        places = find_places(entry, sublayers)
        planned.append((attachment, [(place, _build(model, entry, place)) for place in places]))
    _refuse_second_norm(model, planned)
    shared = _shared_cores(model, planned)

    for attachment, modules in planned:
        for place, module in modules:
            _controller(model, place.path, attachment).add(attachment.task, module)
    for key, (parameter, borrowers) in shared.items():
        if not hasattr(model, "shared_cores"):
            model.shared_cores = nn.ParameterDict()
        if key not in model.shared_cores:
            model.shared_cores[key] = parameter
        for linear, index in borrowers:
            linear.share_core(index, model.shared_cores, key)
    model.adapter_attachments = [*attachments(model), *(attachment for attachment, _ in planned)]
    freeze(model)
    return model


def find_places(config: AdapterConfig, sublayers: list[Sublayer]) -> list[Place]:
    """Where ``config`` sits among the sublayers of a model."""
    if config.position == "weights":
        return []
    chosen = select_sublayers(config, sublayers)
    if config.position == "beside":
        return _linears_by_name(config, chosen)
    if config.position == "after":
        return [Place(sublayer.output, sublayer.kind) for sublayer in chosen]
    return [Place(sublayer.norm, sublayer.kind) for sublayer in chosen]


def _linears_by_name(config: AdapterConfig, chosen: list[Sublayer]) -> list[Place]:
    if config.target_modules is None:
        return [
            Place(path, name)
            for sublayer in chosen
            if sublayer.kind == "feed_forward"
            for name, path in sublayer.linears.items()
        ]
    known = {name for sublayer in chosen for name in sublayer.linears}
    for name in config.target_modules:
        if name not in known:
            config.refuse(
                "target_modules",
                f"names linears of the sublayers {', '.join(config.sublayers)}",
                repr(name),
                nearest_name(name, known)[:-1],
            )
    return [
        Place(path, name)
        for sublayer in chosen
        for name, path in sublayer.linears.items()
        if name in config.target_modules
    ]


def _build(model: nn.Module, config: AdapterConfig, place: Place) -> nn.Module:
    """The adapter module of one place, on the device of the weight it stands at."""
    base = model.get_submodule(place.path)
    if config.position != "norm" and type(base) not in (nn.Linear, AdaptedLinear):
        given = f"a {type(base).__name__} at {place.path}"
        config.refuse("target_modules", "names plain nn.Linear modules", given, "load the model without quantisation")
    with torch.device(base.weight.device):
        if config.position == "norm":
            module = config.build(base.weight.detach(), base.variance_epsilon)
        elif config.position == "beside":
            module = config.build(base.in_features, base.out_features)
        else:
            module = config.build(base.out_features, base.out_features)
    return module.train(base.training)


def _free_name(model: nn.Module, config: AdapterConfig, task: str | None, planned: list) -> str:
    """The name of a configuration in the model: its kind, numbered where another one of that kind is there."""
    present = [*attachments(model), *(attachment for attachment, _ in planned)]
    for attachment in present:
        if attachment.config == config:
            if attachment.task == task:
                config.refuse(
                    "kind", "with equal fields is attached once for a task", repr(task), "attach it only once"
                )
            return attachment.name
    names = {attachment.name for attachment in present}
    number = 2
    name = config.kind
    while name in names:
        name, number = f"{config.kind}_{number}", number + 1
    return name


def _refuse_second_norm(model: nn.Module, planned: list) -> None:
    taken = {
        path: next(iter(module.replacement))
        for path, module in model.named_modules()
        if isinstance(module, AdaptedLayerNorm)
    }
    for attachment, modules in planned:
        if attachment.config.position == "norm":
            for place, _ in modules:
                other = taken.setdefault(place.path, attachment.name)
                if other != attachment.name:
                    given = f"{place.path}, which has {other!r}"
                    attachment.config.refuse("sublayers", "gives each layer norm one replacement", given, "drop one")


def _shared_cores(model: nn.Module, planned: list) -> dict[str, tuple[nn.Parameter, list]]:
    """For each core to be shared: its key, the one Parameter, and the (layer, core index) pairs that borrow it."""
    shared: dict[str, tuple[nn.Parameter, list]] = {}
    for attachment, modules in planned:
        for place, module in modules:
            for path, layer in module.named_modules():
                if not isinstance(layer, t3.TTLinear | t3.TTLayerNorm):
                    continue
                for index in attachment.config.shared_cores:
                    role = path.replace(".", "-")
                    key = f"{attachment.name}-{attachment.task or ALL_TASKS}-{place.role}-{role}-{index}"
                    parameter, borrowers = shared.setdefault(key, (layer.cores[index], []))
                    if parameter.shape != layer.cores[index].shape:
                        attachment.config.refuse(
                            "shared_cores",
                            f"shares cores of one shape among all {place.role!r}",
                            f"{tuple(parameter.shape)} and {tuple(layer.cores[index].shape)} at {place.path}",
                            "choose places of equal sizes",
                        )
                    borrowers.append((layer, index))
    return shared


def _controller(model: nn.Module, path: str, attachment: Attachment) -> AdapterController:
    """The controller of an attachment at a path, made on first use; wraps the base module where it is still plain."""
    base = model.get_submodule(path)
    if attachment.config.position == "norm":
        if not isinstance(base, AdaptedLayerNorm):
            base = AdaptedLayerNorm(base)
            model.set_submodule(path, base)
        controllers = base.replacement
    else:
        if not isinstance(base, AdaptedLinear):
            base = AdaptedLinear(base)
            model.set_submodule(path, base)
        controllers = base.beside if attachment.config.position == "beside" else base.after
    if attachment.name not in controllers:
        controllers[attachment.name] = AdapterController()
    return controllers[attachment.name]
