"""Batches that name the task whose adapters act on them, and the order of the rows of several tasks."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState

import adapters

TASK_COLUMN = "task"
"""The column that names the task of a row."""


class TaskAdaptersMixin:
    """Mixin before ``AdapterTrainerMixin``.

    Args:
        task_names: tasks with their own adapters. Rows have a column ``task``, the index of their task in this
            sequence; a batch has rows of one task, whose adapters act on it, in training and in evaluation.
        train_sampler: gives the order of the training rows instead of transformers' sampler; like that one it has a
            method ``set_epoch``, which is also called when a run resumes within an epoch.
    """

    def __init__(
        self, *args: Any, task_names: Sequence[str] = (), train_sampler: Sampler[int] | None = None, **kwargs: Any
    ) -> None:
        self.task_names = tuple(task_names)
        self.train_sampler = train_sampler
        super().__init__(*args, **kwargs)
        if train_sampler is not None:
            self.add_callback(EpochCallback(train_sampler))

    def model_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Activate the adapters of a batch's task, and return the batch without its column ``task``.

        Raises:
            ValueError: the batch has no such column, or rows of several tasks.
        """
        if not self.task_names:
            return inputs
        inputs = dict(inputs)
        indices = inputs.pop(TASK_COLUMN, None)
        found = [] if indices is None else sorted({self.task_names[index] for index in indices.tolist()})
        if len(found) != 1:
            raise ValueError(
                "A batch must have rows of one task if adapters are attached by task; got rows of "
                f"{found or 'no task'}: give each row a column {TASK_COLUMN!r} and order the rows with a train_sampler."
            )
        if adapters.attachments(self.model):
            adapters.set_active_task(self.model, found[0])
        return inputs

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        return super()._get_train_sampler(train_dataset) if self.train_sampler is None else self.train_sampler

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.task_names and TASK_COLUMN not in self._signature_columns:
            self._signature_columns.append(TASK_COLUMN)


class EpochCallback(TrainerCallback):
    """Tells a sampler the index of the epoch.

    A run that resumes within an epoch reads from a loader that skips the batches already seen; with several processes
    that loader does not pass the index on to a custom sampler.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int(state.epoch))
