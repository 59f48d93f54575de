"""The data of a classification run: each task's splits as texts, and as token ids with the index of the label."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase, TrainingArguments

from adapters import ConfigurationError
from seq2seq.classification.keys import ClassificationKeys
from seq2seq.classification.labels import label_map
from seq2seq.tasks.files import list_rows
from seq2seq.tasks.loading import TaskData, TasksData, load_rows, order_rows, with_task
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.tasks.tokenizers import check_vocabulary, load_tokenizer
from third_party.trainers.exact_loss import IGNORED_LABEL

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledTaskData(TaskData):
    """A task with its labels and the outputs of the head that are theirs; none for numbers."""

    outputs: dict[str, int]


def load_classification_data(keys: ClassificationKeys, arguments: TrainingArguments) -> TasksData:
    """Rows, tokenizer and token ids of every task; writes nothing.

    Raises:
        ConfigurationError: one sentence about the mismatch.
    """
    splits = {spec.name: load_rows(keys, spec) for spec in keys.specs}
    train_sampler = order_rows(keys, arguments, splits)
    tokenizer = padding_tokenizer(keys.model_location)
    tasks = {spec.name: task_data(keys, spec, splits[spec.name], tokenizer) for spec in keys.specs}
    return TasksData(tasks, tokenizer, train_sampler)


def task_data(
    keys: ClassificationKeys, spec: TaskSpec, splits: DatasetDict, tokenizer: PreTrainedTokenizerBase
) -> LabelledTaskData:
    """A task's splits with their token ids; ``spec`` may lack the labels if the rows have none."""
    own = next(known for known in keys.specs if known.name == spec.name)
    numbers = {label: index for index, label in enumerate(label_map(keys.specs))}
    outputs = {label: numbers[label] for label in own.labels or ()}
    check_pairs(splits)
    encoded = DatasetDict()
    for split, rows in splits.items():
        ids = tokenize(rows, tokenizer, keys.max_length, f"{spec.name}, split {split}")
        ids = ids.add_column("labels", [label_value(spec, outputs, target) for target in rows["target"]])
        encoded[split] = with_task(keys, spec, ids)
        check_vocabulary(encoded[split], tokenizer, keys.model_name_or_path, split)
    return LabelledTaskData(spec, splits, encoded, outputs)


def has_pairs(rows: Dataset) -> bool:
    """Whether rows are pairs of texts; your own files without a column ``text_pair`` have empty ones."""
    return "text_pair" in rows.column_names and any(rows["text_pair"])


def check_pairs(splits: DatasetDict) -> None:
    """Refuse splits of which some are single texts and some are pairs."""
    pairs = {split: has_pairs(rows) for split, rows in splits.items()}
    if len({*pairs.values()}) > 1:
        single, pair = (next(split for split, paired in pairs.items() if paired == wanted) for wanted in (False, True))
        raise ConfigurationError(
            f"All files of a run have the column 'text_pair', or none has; got it in the {pair} split and not in the "
            f"{single} split: correct the files."
        )


def label_value(spec: TaskSpec, outputs: dict[str, int], target: str) -> int | float:
    """The index of a target among the head's outputs, or its number; -100 if it has neither."""
    if not spec.metrics:  # rows to predict, without targets
        return IGNORED_LABEL
    return outputs[target] if outputs else float(target)


def padding_tokenizer(location: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer; one without a padding token pads by its end of sequence, which the mask hides."""
    tokenizer = load_tokenizer(location)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigurationError(
                "Key 'model_name_or_path' names a model whose tokenizer can pad rows to one length; got "
                f"{location!r}, which has no pad_token and no eos_token: add one to its tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def tokenize(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, name: str) -> Dataset:
    """Token ids of a split, unpadded; the longer of two texts is truncated first.

    Args:
        rows: a split with the columns ``text`` and, for pairs, ``text_pair``.
        tokenizer: it joins two texts by its own separators.
        max_length: limit on the tokens of a row, special ones included.
        name: what messages call the split.

    Raises:
        ConfigurationError: a row has no token.
    """
    pairs = has_pairs(rows)

    def encode(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        texts = (batch["text"], batch["text_pair"]) if pairs else (batch["text"],)
        ids = tokenizer(*texts, truncation="longest_first", max_length=max_length, verbose=False)
        if empty := [row for row, tokens in zip(batch["row"], ids["input_ids"], strict=True) if not tokens]:
            raise ConfigurationError(
                f"A row to classify has at least one token; got {len(empty)} rows of {name} without any "
                f"({list_rows(empty)}), as the tokenizer adds no special tokens: complete or remove them."
            )
        full = [index for index, row in enumerate(ids["input_ids"]) if len(row) == max_length]
        whole = tokenizer(*([text[index] for index in full] for text in texts), verbose=False) if full else None
        too_long = np.zeros(len(batch["text"]), dtype=bool)
        too_long[full] = [len(row) > max_length for row in whole["input_ids"]] if full else []
        return {**ids, "too_long": too_long}

    encoded = rows.map(
        encode, batched=True, remove_columns=rows.column_names, load_from_cache_file=False, desc="tokenize"
    )
    numbers = np.asarray(rows["row"])[np.asarray(encoded["too_long"], dtype=bool)]
    if len(numbers):
        logger.warning(
            "%s: %d of %d rows are truncated to %d tokens, max_length (%s).",
            name,
            len(numbers),
            len(rows),
            max_length,
            list_rows(numbers),
        )
    return encoded.remove_columns("too_long")
