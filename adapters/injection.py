"""attach: put adapters into a model, freeze the rest.

    places      the configuration says where its modules go (``adapters.base.places``)
    build       one module for each place, on the device of the weight that it stands at
    controller  the base's module is wrapped by its host, which holds a controller for each attachment
    share       parameters that several modules have in common get one owner (``adapters.base.sharing``)

Everything that can be refused is refused before the model is touched.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adapters.base.adapted_input import AdaptedInput
from adapters.base.adapted_layer_norm import AdaptedLayerNorm
from adapters.base.adapted_linear import AdaptedLinear
from adapters.base.controller import ALL_TASKS, AdapterController
from adapters.base.linear_delta import start_from_weight
from adapters.base.mergeable import Mergeable
from adapters.base.places import Place
from adapters.base.sharing import Sharing, plan_sharing, share
from adapters.base.sublayers import find_sublayers
from adapters.configuration import AdapterConfig
from adapters.freezing import freeze, weight_rules
from adapters.merging import non_linear_adapters, unmerge
from adapters.validation import ConfigurationError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attachment:
    """One configuration attached for one task (None: for all); ``name`` is its key in every place it sits."""

    name: str
    task: str | None
    config: AdapterConfig

    def to_dict(self) -> dict[str, Any]:
        return {"task": self.task, "config": self.config.to_dict()}


HOSTS: dict[str, type[Mergeable]] = {
    "before": AdaptedInput,
    "around": AdaptedLinear,
    "beside": AdaptedLinear,
    "after": AdaptedLinear,
    "replacement": AdaptedLayerNorm,
    "shift": AdaptedLayerNorm,
}
"""By slot: the module that holds the adapters, mostly in the place of the base's own."""


def as_configs(config: Any) -> list[AdapterConfig]:
    """An AdapterConfig, its dictionary, or a list of either, as a list of AdapterConfig."""
    entries = config if isinstance(config, list | tuple) else [config]
    if not entries:
        raise ConfigurationError(
            'A list of adapters holds at least one; got an empty list: add one, or {"kind": "none"} to train all.'
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
    entries = as_configs(config)
    has_places = any(entry.position != "weights" for entry in entries)
    sublayers = find_sublayers(model) if has_places else []
    planned: list[tuple[Attachment, list[tuple[Place, nn.Module]]]] = []
    for entry in entries:
        if entry.position == "weights" and task is not None:
            rule = "decides about the model's own weights, which all tasks share"
            entry.refuse("kind", rule, f"task {task!r}", "attach it without a task")
        attachment = Attachment(_free_name(model, entry, task, planned), task, entry)
        planned.append((attachment, _build_all(model, entry, entry.places(sublayers))))
    _check_norms(model, planned)
    _one_name_each(model, planned, "around", "gives each linear one adapter around it")
    shared: Sharing = {}
    for attachment, modules in planned:
        shared |= plan_sharing(model, attachment.name, task or ALL_TASKS, attachment.config, modules)

    unmerge(model)
    active_task = next((m.active_task for m in model.modules() if isinstance(m, AdapterController)), None)
    for attachment, modules in planned:
        for place, module in modules:
            _controller(model, place, attachment.name, active_task).add(attachment.task, module)
    share(model, shared)
    model.adapter_attachments = [*attachments(model), *(attachment for attachment, _ in planned)]
    freeze(model)
    for note in filter(None, (attachment.config.note(model) for attachment, _ in planned)):
        logger.info(note)
    if names := non_linear_adapters(model):
        logger.info("Adapters that cannot be merged, for they are not linear: %s.", ", ".join(names))
    return model


def check_task_name(task: Any) -> None:
    """Refuse a name that cannot be a key of ``AdapterController.tasks``; None stands for all tasks."""
    taken = isinstance(task, str) and (task == ALL_TASKS or hasattr(nn.ModuleDict(), task))
    if task is not None and (not isinstance(task, str) or not task or "." in task or taken):
        raise ConfigurationError(
            f"A task's name is a string that is not empty, has no dot and is no attribute of a module; got "
            f"{task!r}: rename the task."
        )


def _build_all(model: nn.Module, config: AdapterConfig, places: list[Place]) -> list[tuple[Place, nn.Module]]:
    """The adapter modules of all places, each built by itself, or together where the configuration does so."""
    if not hasattr(config, "build_together"):
        return [(place, _build(model, config, place)) for place in places]
    bases = {place.path: _base(model, config, place) for place in places}
    modules = config.build_together(bases)
    return [(place, modules[place.path].train(bases[place.path].training)) for place in places]


def _base(model: nn.Module, config: AdapterConfig, place: Place) -> nn.Module:
    """The model's module at a place, adapted or not; refused where it is of a class that adapters do not know."""
    base = model.get_submodule(place.path)
    if HOSTS[place.slot] is AdaptedLinear and type(base) not in (nn.Linear, AdaptedLinear):
        key = "target_modules" if hasattr(config, "target_modules") else "sublayers"
        given = f"a {type(base).__name__} at {place.path}"
        config.refuse(key, "names plain nn.Linear modules", given, "load the model without quantisation")
    return base


def _build(model: nn.Module, config: AdapterConfig, place: Place) -> nn.Module:
    """The adapter module of one place, on the device of the weight it stands at."""
    base = _base(model, config, place)
    if place.slot == "before":
        base = base.embed_tokens
    weight = base.base_tensor("weight") if isinstance(base, Mergeable) else base.weight.detach()
    with torch.device(weight.device):
        if place.slot == "replacement":
            module = config.build(weight, base.variance_epsilon)
        elif place.slot == "before":
            module = config.build(weight)
        elif place.slot == "beside":
            module = config.build_at(place, base.in_features, base.out_features)
            start_from_weight(module, weight, place.path)
        else:
            module = config.build_at(place, weight.shape[0], weight.shape[0])
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
    replaced = _one_name_each(model, planned, "replacement", "gives each layer norm one replacement")
    present = [*attachments(model), *(attachment for attachment, _ in planned)]
    rules = weight_rules(model, [attachment.config for attachment in present])
    for path, name in replaced.items():
        trainable, config = rules.get(f"{path}.weight", (False, None))
        if trainable:
            config.refuse("kind", "trains norms that act", f"{path}, replaced by {name!r}", "choose one for each norm")


def _one_name_each(model: nn.Module, planned: list, slot: str, rule: str) -> dict[str, str]:
    """By path: the one attachment that has modules in this slot of the place; a second one is refused."""
    names = {path: next(iter(getattr(m, slot))) for path, m in model.named_modules() if getattr(m, slot, None)}
    for attachment, modules in planned:
        for place, _ in modules:
            if place.slot == slot and (other := names.setdefault(place.path, attachment.name)) != attachment.name:
                given = f"{place.path}, which has {other!r}"
                key = "sublayers" if slot == "replacement" else "kind"
                attachment.config.refuse(key, rule, given, "drop one")
    return names


def _controller(model: nn.Module, place: Place, name: str, active_task: str | None) -> AdapterController:
    """The controller of an attachment at a place, made on first use, as is its host."""
    host = HOSTS[place.slot].at(model, place.path)
    controllers = getattr(host, place.slot)
    if name not in controllers:
        controllers[name] = AdapterController(active_task).train(host.training)
    return controllers[name]
