"""attach: put adapters into a model and freeze the rest.

    places      where the configuration wants its modules (``adapters.base.places``)
    build       one module for each place, by the host of that place (``adapters.base.mergeable``)
    install     the host takes the place of the base's module and holds a controller for each attachment
    share       parameters that several modules have in common get one owner (``adapters.base.sharing``)

Every check runs before the model is changed.
"""

import logging
from dataclasses import dataclass
from typing import Any

from torch import nn

from adapters.base.adapted_input import AdaptedInput
from adapters.base.adapted_layer_norm import AdaptedLayerNorm
from adapters.base.adapted_linear import AdaptedMap
from adapters.base.controller import ALL_TASKS, AdapterController
from adapters.base.mergeable import Mergeable
from adapters.base.places import Place
from adapters.base.sharing import Sharing, plan_sharing, share
from adapters.base.sublayers import find_sublayers
from adapters.compiled import uncompiled
from adapters.configuration import AdapterConfig
from adapters.freezing import freeze, weight_rules
from adapters.merging import non_linear_adapters, unmerge
from adapters.save_pretrained import refuse_save_pretrained
from adapters.validation import ConfigurationError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attachment:
    """One configuration, attached for one task or for all (None); ``name`` is its key in the hosts."""

    name: str
    task: str | None
    config: AdapterConfig

    def to_dict(self) -> dict[str, Any]:
        return {"task": self.task, "config": self.config.to_dict()}


HOSTS: dict[str, type[Mergeable]] = {
    "before": AdaptedInput,
    "around": AdaptedMap,
    "beside": AdaptedMap,
    "after": AdaptedMap,
    "replacement": AdaptedLayerNorm,
    "shift": AdaptedLayerNorm,
}
"""The class of the host by the attribute of it that holds the adapters."""


def as_configs(config: Any) -> list[AdapterConfig]:
    """An AdapterConfig, its dictionary, or a list of either, as a list of AdapterConfig."""
    entries = config if isinstance(config, list | tuple) else [config]
    if not entries:
        raise ConfigurationError(
            'A list of adapters must have at least one; got an empty list: add one, or {"kind": "none"} for full '
            "fine-tuning."
        )
    return [entry if isinstance(entry, AdapterConfig) else AdapterConfig.from_dict(entry) for entry in entries]


def attachments(model: nn.Module) -> list[Attachment]:
    """The attachments of the model, in order."""
    return list(getattr(model, "adapter_attachments", []))


def attach(model: nn.Module, config: Any, task: str | None = None) -> nn.Module:
    """Put the adapters of ``config`` into ``model``, freeze its other parameters, and return the same model, unmerged.

    Args:
        model: a model with its weights loaded (or on the meta device, to be loaded later); it may be compiled.
        config: an ``AdapterConfig``, its dictionary form, or a list of them, which compose.
        task: the task these adapters belong to; None for all tasks.

    Raises:
        ConfigurationError: a configuration does not fit this model. The model is unchanged.
    """
    check_task_name(task)
    given, model = model, uncompiled(model)
    entries = as_configs(config)
    has_places = any(entry.position != "weights" for entry in entries)
    sublayers = find_sublayers(model) if has_places else []
    planned: list[tuple[Attachment, list[tuple[Place, nn.Module]]]] = []
    for entry in entries:
        if entry.position == "weights" and task is not None:
            rule = "decides about the model's own weights, which all tasks share"
            entry.refuse("kind", rule, f"task {task!r}", "attach it without a task")
        modules = _build_all(model, entry, entry.places(sublayers))
        entry = entry.settled(modules)
        planned.append((Attachment(_free_name(model, entry, task, planned), task, entry), modules))
    _check_norms(model, planned)
    _one_attachment_each(model, planned, "around", "gives each linear one adapter around it")
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
    refuse_save_pretrained(model)
    for note in filter(None, (attachment.config.note(model) for attachment, _ in planned)):
        logger.info(note)
    if names := non_linear_adapters(model):
        logger.info("Adapters that are not linear and cannot be merged: %s.", ", ".join(names))
    return given


def check_task_name(task: Any) -> None:
    """Check that a task name can be a key of ``AdapterController.tasks``; None means all tasks."""
    reserved = isinstance(task, str) and (task == ALL_TASKS or hasattr(nn.ModuleDict(), task))
    if task is not None and (not isinstance(task, str) or not task or "." in task or reserved):
        raise ConfigurationError(
            f"The name of a task is a non-empty string without a dot and not an attribute of a module; got {task!r}: "
            "rename the task."
        )


def _build_all(model: nn.Module, config: AdapterConfig, places: list[Place]) -> list[tuple[Place, nn.Module]]:
    """The adapter modules of all places; a kind whose modules depend on each other builds them itself."""
    bases = {place.path: HOSTS[place.slot].base_at(model, place.path, config) for place in places}
    together = config.build_together(bases, places)
    if together is not None:
        return [(place, together[place.path].train(bases[place.path].training)) for place in places]
    return [(place, HOSTS[place.slot].build_adapter(bases[place.path], config, place)) for place in places]


def _free_name(model: nn.Module, config: AdapterConfig, task: str | None, planned: list) -> str:
    """The name of a configuration in the model: its kind, with a number if that name is taken."""
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
    """Check that a norm has one replacement, and that the weight of a replaced norm, being unused, does not train."""
    replaced = _one_attachment_each(model, planned, "replacement", "gives each layer norm one replacement")
    present = [*attachments(model), *(attachment for attachment, _ in planned)]
    rules = weight_rules(model, [attachment.config for attachment in present])
    for path, name in replaced.items():
        trainable, config = rules.get(f"{path}.weight", (False, None))
        if trainable:
            given = f"{path}, replaced by {name!r}"
            config.refuse("kind", "trains norms that are in use", given, "choose one of the two for each norm")


def _one_attachment_each(model: nn.Module, planned: list, slot: str, rule: str) -> dict[str, str]:
    """The attachment in this slot of each place, by path; ConfigurationError for a second one."""
    names = {path: next(iter(getattr(m, slot))) for path, m in model.named_modules() if getattr(m, slot, None)}
    for attachment, modules in planned:
        for place, _ in modules:
            if place.slot == slot and (other := names.setdefault(place.path, attachment.name)) != attachment.name:
                given = f"{place.path}, which has {other!r}"
                key = "sublayers" if slot == "replacement" else "kind"
                attachment.config.refuse(key, rule, given, "drop one")
    return names


def _controller(model: nn.Module, place: Place, name: str, active_task: str | None) -> AdapterController:
    """The controller of an attachment at a place; it and its host are created on first use."""
    host = HOSTS[place.slot].install(model, place.path)
    controllers = getattr(host, place.slot)
    if name not in controllers:
        controllers[name] = AdapterController(active_task).train(host.training)
    return controllers[name]
