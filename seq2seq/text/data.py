"""The data of a text run: each task's splits as texts and as token ids."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase, Seq2SeqTrainingArguments

from seq2seq.tasks.loading import TaskData, TasksData, load_rows, order_rows, with_task
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.tasks.tokenizers import check_vocabulary, load_tokenizer
from seq2seq.text.encoding import tokenize
from seq2seq.text.keys import TextKeys
from seq2seq.text.round_trip import check_labels, report_free_text


@dataclass(frozen=True)
class TextTaskData(TaskData):
    """A task with the targets that the tokenizer changes, and what it makes of them."""

    unwritable: Mapping[str, str] = field(default_factory=dict)


def load_text_data(keys: TextKeys, arguments: Seq2SeqTrainingArguments) -> TasksData:
    """Rows, tokenizer and token ids of every task; writes nothing.

    Raises:
        ConfigurationError: one sentence about the mismatch.
    """
    splits = {spec.name: load_rows(keys, spec) for spec in keys.specs}
    train_sampler = order_rows(keys, arguments, splits)
    tokenizer = load_tokenizer(keys.model_location)
    tasks = {}
    for spec in keys.specs:
        check_labels(spec, tokenizer, keys.model_name_or_path, keys.max_target_length)
        rows = splits[spec.name]
        encoded = encode(keys, spec, rows, tokenizer)
        tasks[spec.name] = TextTaskData(spec, rows, encoded, report_free_text(spec, rows, tokenizer))
    return TasksData(tasks, tokenizer, train_sampler)


def encode(keys: TextKeys, spec: TaskSpec, splits: DatasetDict, tokenizer: PreTrainedTokenizerBase) -> DatasetDict:
    """The splits of a task as token ids; refuses a tokenizer that does not know the words."""
    encoded = DatasetDict()
    for split, rows in splits.items():
        name = f"{spec.name}, split {split}"
        ids, _ = tokenize(rows, tokenizer, keys.max_source_length, keys.max_target_length, name)
        encoded[split] = with_task(keys, spec, ids.select_columns(["input_ids", "labels"]))
        check_vocabulary(encoded[split], tokenizer, keys.model_name_or_path, split)
    return encoded
