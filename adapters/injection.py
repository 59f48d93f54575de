"""attach: put adapters into a model, freeze the rest.

One walk: the configuration names sublayers; in each, the places are

    position "beside"    the linears named by target_modules          -> AdaptedLinear.beside
    position "after"     the linear at the end of the sublayer        -> AdaptedLinear.after
    position "norm"      the sublayer's layer norm                    -> AdaptedLayerNorm.replacement
    position "weights"   none: the kind decides only which of the model's own parameters train

Everything that can be refused is refused before the model is touched.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import t3nsor as t3
from adapters.adapted_linear import AdaptedLinear
from adapters.configuration import AdapterConfig
from adapters.controller import ALL_TASKS, AdapterController
from adapters.freezing import freeze, weight_rules
from adapters.layer_norm import AdaptedLayerNorm
from adapters.mergeable import Mergeable
from adapters.merging import non_linear_adapters, unmerge
from adapters.sublayers import Sublayer, find_sublayers, select_sublayers
from adapters.validation import ConfigurationError, nearest_name

logger = logging.getLogger(__name__)


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
    if not entries:
        raise ConfigurationError(
            'A list of adapters holds at least one; given was an empty list: add one, or {"kind": "none"} to train all.'
        )
    return [entry if isinstance(entry, AdapterConfig) else AdapterConfig.from_dict(entry) for entry in entries]


def attachments(model: nn.Module) -> list[Attachment]:
    """What is attached to the model, in order."""
    return list(getattr(model, "adapter_attachments", []))


def attach(model: nn.Module, config: Any, task: str | None = None) -> nn.Module:
    """Put the adapters of ``config`` into ``model``, freeze its other parameters, and return the same model, unmerged.

    Args:
        model: a T5 with its weights loaded (or on the meta device, to be loaded later).
        config: an ``AdapterConfig``, its dictionary form, or a list of them, which compose.
        task: the task these adapters belong to; None for all tasks.

    Raises:
        ConfigurationError: a configuration does not fit this model. The model is as it was.
    """
    check_task_name(task)
    sublayers = find_sublayers(model)
    planned: list[tuple[Attachment, list[tuple[Place, nn.Module]]]] = []
    for entry in as_configs(config):
        if entry.position == "weights" and task is not None:
            rule = "decides about the model's own weights, which all tasks share"
            entry.refuse("kind", rule, f"task {task!r}", "attach it without a task")
        attachment = Attachment(_free_name(model, entry, task, planned), task, entry)
        places = find_places(entry, sublayers)
        planned.append((attachment, [(place, _build(model, entry, place)) for place in places]))
    _check_norms(model, planned)
    shared = _shared_cores(model, planned)

    unmerge(model)
    active_task = next((m.active_task for m in model.modules() if isinstance(m, AdapterController)), None)
    for attachment, modules in planned:
        for place, module in modules:
            _controller(model, place.path, attachment, active_task).add(attachment.task, module)
    if shared and not hasattr(model, "shared_cores"):
        model.shared_cores = nn.ParameterDict().train(model.training)
    for key, (parameter, borrowers) in shared.items():
        model.shared_cores[key] = parameter
        for linear, index in borrowers:
            linear.share_core(index, model.shared_cores, key)
    model.adapter_attachments = [*attachments(model), *(attachment for attachment, _ in planned)]
    freeze(model)
    if names := non_linear_adapters(model):
        logger.info("Adapters that cannot be merged, for they are not linear: %s.", ", ".join(names))
    return model


def check_task_name(task: Any) -> None:
    """Refuse a name that cannot be a key of ``AdapterController.tasks``; None stands for all tasks."""
    taken = isinstance(task, str) and (task == ALL_TASKS or hasattr(nn.ModuleDict(), task))
    if task is not None and (not isinstance(task, str) or not task or "." in task or taken):
        raise ConfigurationError(
            f"A task's name is a string that is not empty, has no dot and is no attribute of a module; given was "
            f"{task!r}: rename the task."
        )


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
        places = [
            Place(path, name)
            for sublayer in chosen
            if sublayer.kind == "feed_forward"
            for name, path in sublayer.linears.items()
        ]
        if not places:
            given = f"null with sublayers {list(config.sublayers)}"
            config.refuse("target_modules", "means the feed-forward linears where it is null", given, "name linears")
        return places
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
    weight = base.base_tensor("weight") if isinstance(base, Mergeable) else base.weight.detach()
    with torch.device(weight.device):
        if config.position == "norm":
            module = config.build(weight, base.variance_epsilon)
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


def _check_norms(model: nn.Module, planned: list) -> None:
    """A norm has one replacement, and a replaced norm's own weight, which takes no part any more, does not train."""
    replaced = {
        path: next(iter(module.replacement))
        for path, module in model.named_modules()
        if isinstance(module, AdaptedLayerNorm)
    }
    for attachment, modules in planned:
        if attachment.config.position == "norm":
            for place, _ in modules:
                other = replaced.setdefault(place.path, attachment.name)
                if other != attachment.name:
                    given = f"{place.path}, which has {other!r}"
                    attachment.config.refuse("sublayers", "gives each layer norm one replacement", given, "drop one")
    present = [*attachments(model), *(attachment for attachment, _ in planned)]
    rules = weight_rules(model, [attachment.config for attachment in present])
    for path, name in replaced.items():
        trainable, config = rules.get(f"{path}.weight", (False, None))
        if trainable:
            config.refuse("kind", "trains norms that act", f"{path}, replaced by {name!r}", "choose one for each norm")


def _shared_cores(model: nn.Module, planned: list) -> dict[str, tuple[nn.Parameter, list]]:
    """For each core to be shared: its key, the one Parameter, and the (layer, core index) pairs that borrow it."""
    shared: dict[str, tuple[nn.Parameter, list]] = {}
    for attachment, modules in planned:
        for place, module in modules:
            for path, layer in module.named_modules():
                if not isinstance(layer, t3.TTLinear | t3.TTLayerNorm):
                    continue
                for index in getattr(attachment.config, "shared_cores", ()):
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


def _controller(model: nn.Module, path: str, attachment: Attachment, active_task: str | None) -> AdapterController:
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
        controllers[attachment.name] = AdapterController(active_task).train(base.training)
    return controllers[attachment.name]
