"""merge_and_unload: the plain model that computes what the adapted one does.

    adapted model    ->    the same model: nn.Linear and the base's norms with merged weights, all of its parameters
                           trainable, without any module, hook or attribute of this package

Every check runs before the model is changed. Kinds of position "weights" have trained the model's own parameters, so
there is nothing to merge for them.
"""

from torch import Tensor, nn

from adapters.active_task import set_active_task
from adapters.base.controller import AdapterController
from adapters.base.kept_base import MergeError
from adapters.base.mergeable import Mergeable
from adapters.compiled import uncompiled
from adapters.injection import attachments
from adapters.merging import merged_tensors, unmerge
from adapters.save_pretrained import allow_save_pretrained
from adapters.validation import ConfigurationError, nearest_name


def merge_and_unload(model: nn.Module, task: str | None = None) -> nn.Module:
    """Merge the adapters for good and remove them, in place.

    Args:
        model: a model with adapters, merged or not; a compiled one is unwrapped.
        task: the task whose adapters are merged; by default the active one. Those of other tasks are dropped.

    Returns:
        The same model, plain: ``save_pretrained`` writes a folder that transformers loads without this package.

    Raises:
        ConfigurationError: the model has no adapters, or adapters by task and no such task. The model is unchanged.
        MergeError: an adapter is not linear, a merged weight is not finite or tied to another one, or there is a
            bias for a module without one, which its configuration could not describe. The model is unchanged.
    """
    model = uncompiled(model)
    before = _active_task(model)
    task = _task_to_merge(model, task, before)
    set_active_task(model, task)
    try:
        planned = [(path, host, _without_new_biases(path, host, new)) for path, host, new in merged_tensors(model)]
    except MergeError:
        set_active_task(model, before)
        raise
    unmerge(model)
    for path, host, tensors in planned:
        host.replace_base(tensors)
        host.uninstall(model, path)
    _remove_traces(model)
    return model


def _active_task(model: nn.Module) -> str | None:
    return next((module.active_task for module in model.modules() if isinstance(module, AdapterController)), None)


def _task_to_merge(model: nn.Module, task: str | None, active: str | None) -> str | None:
    """The task whose adapters are merged; None if all adapters are for all tasks."""
    present = attachments(model)
    if not present:
        raise ConfigurationError(
            f"Adapters are merged into the model that has them; got a {type(model).__name__} without any: call "
            "adapters.attach or adapters.load first, or the model's own merge_and_unload if PEFT has adapted it."
        )
    known = [attachment.task for attachment in present if attachment.task is not None]
    task = active if task is None else task
    if known and task is None:
        raise ConfigurationError(
            f"A model with adapters by task is merged for one of them; got no task, and none is active: name one of "
            f"{', '.join(dict.fromkeys(known))}."
        )
    if task is not None and task != active and task not in known:
        raise ConfigurationError(f"The task to merge must have adapters; got {task!r}: {nearest_name(task, known)}")
    return task


def _without_new_biases(path: str, host: Mergeable, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The merged tensors without a bias of zeros that the base's module does not have.

    Raises:
        MergeError: such a bias is not zero.
    """
    if "bias" not in tensors or host.base_tensor("bias") is not None:
        return tensors
    if tensors["bias"].any():
        names = [name for name, controller in host.named_controllers() if _has_bias(controller.active)]
        kinds = ", ".join(repr(name.rpartition(".")[2]) for name in names)
        raise MergeError(
            f"A module without a bias cannot get one for good, as the model's configuration has none and it would be "
            f"lost when the model is saved and loaded; got the bias of {kinds} at {path}: keep the adapters "
            "(adapters.merged, adapters.save), or train them without a bias."
        )
    return {name: tensor for name, tensor in tensors.items() if name != "bias"}


def _has_bias(adapter: nn.Module | None) -> bool:
    return hasattr(adapter, "delta_bias") and adapter.delta_bias() is not None


def _remove_traces(model: nn.Module) -> None:
    """Remove what ``attach`` has left on the model itself, and make all parameters trainable."""
    for name in ("adapter_attachments", "freezing_report", "shared_parameters"):
        if hasattr(model, name):
            delattr(model, name)
    allow_save_pretrained(model)
    for module in model.modules():
        if getattr(getattr(module, "config", None), "adapters", None):
            module.config.adapters = None
    model.requires_grad_(True)
