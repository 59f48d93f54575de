"""Which task's adapters act: state of the model, set between batches."""

from torch import nn

from adapters.controller import AdapterController
from adapters.injection import attachments
from adapters.merging import is_merged, merge, unmerge
from adapters.validation import ConfigurationError, nearest_name


def set_active_task(model: nn.Module, task: str | None) -> None:
    """Let ``task``'s adapters act from now on, and those attached for all tasks where it has none of its own.

    A merged model is merged again with the new task's adapters.

    Raises:
        ConfigurationError: adapters are attached by task and none for this one. The model is as it was.
    """
    known = {attachment.task for attachment in attachments(model)}
    if task is not None and task not in known and None not in known:
        raise ConfigurationError(
            f"The active task is one that adapters were attached for; given was {task!r}: {nearest_name(task, known)}"
        )
    was_merged = is_merged(model)
    unmerge(model)
    for module in model.modules():
        if isinstance(module, AdapterController):
            module.active_task = task
    if was_merged:
        merge(model)
