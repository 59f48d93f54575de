"""The rows of a run on tasks: each task's splits as texts and as token ids, and the order of a mixture's rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase, TrainingArguments

from adapters import ConfigurationError
from seq2seq.errors import refusing
from seq2seq.tasks.keys import TaskKeys
from seq2seq.tasks.mixing import MixtureSampler
from seq2seq.tasks.sources import is_task_folder, load_splits
from seq2seq.tasks.splits import limit_rows
from seq2seq.tasks.task_spec import TaskSpec
from third_party.trainers import TASK_COLUMN


@dataclass(frozen=True)
class TaskData:
    """A task with its splits, as texts and as token ids."""

    spec: TaskSpec
    splits: DatasetDict
    encoded: DatasetDict


@dataclass(frozen=True)
class TasksData:
    """The tasks by name, the tokenizer, and the sampler of a mixture's training rows."""

    tasks: Mapping[str, TaskData]
    tokenizer: PreTrainedTokenizerBase
    train_sampler: MixtureSampler | None = None

    def samples(self) -> Mapping[str, Dataset]:
        """Each task's encoded rows, of the validation split if there is one."""
        return {
            name: task.encoded[next(split for split in ("validation", "test", "train") if split in task.encoded)]
            for name, task in self.tasks.items()
        }


def load_rows(keys: TaskKeys, spec: TaskSpec) -> DatasetDict:
    """The splits of a task as texts, limited to the rows that the run uses.

    Raises:
        ConfigurationError: one sentence about the mismatch.
    """
    if keys.mixture is not None and keys.data_dir is not None and is_task_folder(keys.data_dir):
        raise ConfigurationError(
            "Key 'data_dir' of a mixture names a directory that holds a folder for each task; got "
            f"{keys.data_dir!r}, which holds rows itself: give the directory above it."
        )
    with refusing(key_of(keys, spec), ", ".join(spec.files.values()) or spec.name):
        splits = load_splits(spec, data_dir=keys.data_dir, data_seed=keys.data_seed)
        splits = DatasetDict({split: splits[split] for split in keys.splits})
    for split in splits:
        limit = getattr(keys, f"max_{split}_samples")
        with refusing(f"max_{split}_samples", f"{limit} of task {spec.name}"):
            splits = limit_rows(splits, {split: limit}, keys.data_seed)
    return splits


def key_of(keys: TaskKeys, spec: TaskSpec) -> str:
    """The key that gives a task's rows, for error messages."""
    if keys.files:
        return "train_file, validation_file or test_file"
    if spec.name in keys.described:
        return f"tasks.{spec.name}"
    return "task_name" if keys.mixture is None else "mixture.tasks"


def order_rows(
    keys: TaskKeys, arguments: TrainingArguments, splits: Mapping[str, DatasetDict]
) -> MixtureSampler | None:
    """The sampler of a mixture's training rows, or None for transformers' own."""
    if keys.mixture is None:
        return None
    sizes = {name: len(parts["train"]) for name, parts in splits.items()}
    step_rows = arguments.per_device_train_batch_size * arguments.world_size
    return keys.mixture.sampler(sizes, step_rows, arguments.seed)


def with_task(keys: TaskKeys, spec: TaskSpec, encoded: Dataset) -> Dataset:
    """Encoded rows with a column that has the index of their task, if each task has its own adapters."""
    if not keys.adapters_per_task:
        return encoded
    return encoded.add_column(TASK_COLUMN, [keys.task_names.index(spec.name)] * len(encoded))
