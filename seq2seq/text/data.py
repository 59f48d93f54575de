"""The data of a text run: each task's splits as texts and as token ids, and the order of a mixture's rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase, Seq2SeqTrainingArguments

from adapters import ConfigurationError
from seq2seq.errors import refusing
from seq2seq.tasks.mixing import MixtureSampler
from seq2seq.tasks.sources import is_task_folder, load_splits
from seq2seq.tasks.splits import limit_rows
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.text.backbone import load_tokenizer
from seq2seq.text.encoding import tokenize
from seq2seq.text.keys import TextKeys
from seq2seq.text.round_trip import check_labels, report_free_text
from third_party.trainers import TASK_COLUMN

MAX_UNKNOWN = 0.3
"""The share of unknown tokens above which a tokenizer does not fit the texts."""


@dataclass(frozen=True)
class TaskData:
    """A task with its splits, as texts and as token ids, and the targets that the tokenizer changes."""

    spec: TaskSpec
    splits: DatasetDict
    encoded: DatasetDict
    unwritable: Mapping[str, str]


@dataclass(frozen=True)
class TextData:
    """The tasks by name, the tokenizer, and the sampler of a mixture's training rows."""

    tasks: dict[str, TaskData]
    tokenizer: PreTrainedTokenizerBase
    train_sampler: MixtureSampler | None

    def samples(self) -> Mapping[str, Dataset]:
        """Each task's encoded rows, of the validation split if there is one."""
        return {
            name: task.encoded[next(split for split in ("validation", "test", "train") if split in task.encoded)]
            for name, task in self.tasks.items()
        }


def load_text_data(keys: TextKeys, arguments: Seq2SeqTrainingArguments) -> TextData:
    """Rows, tokenizer and token ids of every task; writes nothing.

    Raises:
        ConfigurationError: one sentence about the mismatch.
    """
    splits = {spec.name: load_rows(keys, spec) for spec in keys.specs}
    train_sampler = order_rows(keys, arguments, splits)
    tokenizer = load_tokenizer(keys.model_location)
    tasks = {}
    for index, spec in enumerate(keys.specs):
        check_labels(spec, tokenizer, keys.model_name_or_path, keys.max_target_length)
        rows = splits[spec.name]
        encoded = encode(keys, spec, index, rows, tokenizer)
        tasks[spec.name] = TaskData(spec, rows, encoded, report_free_text(spec, rows, tokenizer))
    return TextData(tasks, tokenizer, train_sampler)


def load_rows(keys: TextKeys, spec: TaskSpec) -> DatasetDict:
    """The splits of a task as texts, limited to the rows that the run uses."""
    if keys.mixture is not None and keys.data_dir is not None and is_task_folder(keys.data_dir):
        raise ConfigurationError(
            "Key 'data_dir' of a mixture names a directory that holds a folder for each task; got "
            f"{keys.data_dir!r}, which holds rows itself: give the directory above it."
        )
    key = "task_name" if keys.mixture is None else "mixture.tasks"
    if keys.files:
        key = "train_file, validation_file or test_file"
    elif spec.name in keys.described:
        key = f"tasks.{spec.name}"
    with refusing(key, ", ".join(spec.files.values()) or spec.name):
        splits = load_splits(spec, data_dir=keys.data_dir, data_seed=keys.data_seed)
        splits = DatasetDict({split: splits[split] for split in keys.splits})
    for split in splits:
        limit = getattr(keys, f"max_{split}_samples")
        with refusing(f"max_{split}_samples", f"{limit} of task {spec.name}"):
            splits = limit_rows(splits, {split: limit}, keys.data_seed)
    return splits


def order_rows(
    keys: TextKeys, arguments: Seq2SeqTrainingArguments, splits: dict[str, DatasetDict]
) -> MixtureSampler | None:
    """The sampler of a mixture's training rows, or None for transformers' own."""
    if keys.mixture is None:
        return None
    sizes = {name: len(parts["train"]) for name, parts in splits.items()}
    step_rows = arguments.per_device_train_batch_size * arguments.world_size
    return keys.mixture.sampler(sizes, step_rows, arguments.seed)


def encode(
    keys: TextKeys, spec: TaskSpec, index: int, splits: DatasetDict, tokenizer: PreTrainedTokenizerBase
) -> DatasetDict:
    """The splits of a task as token ids; refuses a tokenizer that does not know the words.

    If each task has its own adapters, a column ``task`` has its index among the tasks of the data.
    """
    encoded = DatasetDict()
    for split, rows in splits.items():
        name = f"{spec.name}, split {split}"
        ids, _ = tokenize(rows, tokenizer, keys.max_source_length, keys.max_target_length, name)
        encoded[split] = ids.select_columns(["input_ids", "labels"])
        if keys.adapters_per_task:
            encoded[split] = encoded[split].add_column(TASK_COLUMN, [index] * len(ids))
        sample = torch.tensor([token for row in encoded[split][:100]["input_ids"] for token in row])
        unknown = (sample == tokenizer.unk_token_id).float().mean().item()
        if unknown > MAX_UNKNOWN:
            raise ConfigurationError(
                "Key 'model_name_or_path' names a model whose tokenizer knows the words of the task; got "
                f"{keys.model_name_or_path!r}, which has no token for {unknown:.0%} of the {split} split: "
                "check that its vocabulary file (spiece.model or tokenizer.json) is there."
            )
    return encoded
