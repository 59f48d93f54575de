"""The active task, whose adapters act: state of the model, set between batches."""

from torch import nn

from adapters.base.controller import AdapterController
from adapters.base.kept_base import MergeError
from adapters.injection import attachments
from adapters.merging import is_merged, merge
from adapters.validation import ConfigurationError, nearest_name


def set_active_task(model: nn.Module, task: str | None) -> None:
    """Activate the adapters of ``task``, and those attached for all tasks in places where that task has none.

    A merged model is merged again with the new task's adapters, unless they are active already.

    Raises:
        ConfigurationError: adapters are attached by task, and none for this task. The model is unchanged.
        MergeError: the model is merged and the new task's adapters cannot be merged. The model is unchanged.
    """
    known = {attachment.task for attachment in attachments(model)}
    if task is not None and task not in known and None not in known:
        raise ConfigurationError(f"The active task must have adapters; got {task!r}: {nearest_name(task, known)}")
    controllers = [module for module in model.modules() if isinstance(module, AdapterController)]
    before = [controller.active_task for controller in controllers]
    if all(former == task for former in before):
        return
    for controller in controllers:
        controller.active_task = task
    if is_merged(model):
        try:
            merge(model)
        except MergeError:
            for controller, former in zip(controllers, before, strict=True):
                controller.active_task = former
            raise
