"""The data of a causal run: rows of tasks, or the texts of a corpus, as token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, TrainingArguments

from adapters import ConfigurationError
from seq2seq.causal.corpus import texts_of
from seq2seq.causal.decoder import load_decoder_tokenizer, load_teacher
from seq2seq.causal.encoding import Encoder
from seq2seq.causal.keys import CausalKeys
from seq2seq.causal.last_words import last_word_rows
from seq2seq.causal.tokens import kept_stream, stream_of
from seq2seq.causal.windows import Reading, ScoredWindows, TokenStream
from seq2seq.tasks.loading import TaskData, TasksData, load_rows, order_rows, with_task
from seq2seq.tasks.prediction import rows_to_predict
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.tasks.tokenizers import check_vocabulary

SAMPLE_WINDOWS = 2
"""Windows of a corpus on which merged and unmerged logits are compared."""


@dataclass(frozen=True)
class CausalTaskData(TaskData):
    """A task, and the labels whose likelihoods are compared; None if answers are generated."""

    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CausalTasksData(TasksData):
    """The tasks by name, with what makes token ids of them."""

    encoder: Encoder | None = None
    teacher: nn.Module | None = None


@dataclass(frozen=True)
class CorpusData:
    """The texts of each split, and how they are read."""

    streams: Mapping[str, TokenStream]
    tokenizer: PreTrainedTokenizerBase
    reading: Reading
    last_words: Sequence[dict[str, list[int]]] = ()
    continuations: int = 0
    teacher: nn.Module | None = None

    def samples(self) -> Mapping[str, Dataset]:
        """The first windows, of the validation split if there is one."""
        split = next(split for split in ("validation", "test", "train") if split in self.streams)
        windows = ScoredWindows(self.streams[split], self.reading)
        return {"corpus": Dataset.from_list([windows[k] for k in range(min(SAMPLE_WINDOWS, len(windows)))])}


def load_tasks(keys: CausalKeys, arguments: TrainingArguments) -> CausalTasksData:
    """Rows, tokenizer and token ids of every task; writes nothing.

    Raises:
        ConfigurationError: one sentence about the mismatch.
    """
    splits = {spec.name: load_rows(keys, spec) for spec in keys.specs}
    train_sampler = order_rows(keys, arguments, splits)
    encoder = make_encoder(keys)
    tasks = {spec.name: encode(keys, spec, splits[spec.name], encoder) for spec in keys.specs}
    teacher = load_teacher(keys, len(encoder.tokenizer))
    return CausalTasksData(tasks, encoder.tokenizer, train_sampler, encoder, teacher)


def load_rows_to_predict(keys: CausalKeys, path: Path, task: str | None) -> CausalTasksData:
    """The rows of a file as the split ``test`` of a task; labels are compared also where targets are missing."""
    spec, splits = rows_to_predict(keys, path, task)
    labels = next(known.labels for known in keys.specs if known.name == spec.name)
    encoder = make_encoder(keys)
    return CausalTasksData({spec.name: encode(keys, spec, splits, encoder, labels)}, encoder.tokenizer, encoder=encoder)


def make_encoder(keys: CausalKeys) -> Encoder:
    """What makes token ids of the run's rows."""
    tokenizer = load_decoder_tokenizer(keys)
    return Encoder(tokenizer, keys.template, keys.max_source_length, keys.max_target_length)


def encode(
    keys: CausalKeys, spec: TaskSpec, splits: DatasetDict, encoder: Encoder, labels: tuple[str, ...] | None = None
) -> CausalTaskData:
    """A task as token ids.

    Raises:
        ConfigurationError: the tokenizer does not know the words, or a label is longer than an answer may be.
    """
    labels = labels or spec.labels
    longest = max(labels or ("",), key=lambda label: len(encoder.whole_answer(label)))
    if (tokens := len(encoder.whole_answer(longest)) + 1) > keys.max_target_length:
        raise ConfigurationError(
            f"Key 'max_target_length' must leave room for each label of task {spec.name!r} and its end; got "
            f"{keys.max_target_length}, and {longest!r} has {tokens} tokens: set it to {tokens}."
        )
    encoded = DatasetDict()
    for split, rows in splits.items():
        encoded[split] = with_task(keys, spec, encoder.rows(rows, f"{spec.name}, split {split}"))
        check_vocabulary(encoded[split], encoder.tokenizer, keys.model_name_or_path, split)
    return CausalTaskData(spec, splits, encoded, labels if keys.scoring == "likelihood" else None)


def load_corpus(keys: CausalKeys) -> CorpusData:
    """The texts of every split as token ids, kept in the cache of ``datasets``.

    Raises:
        ConfigurationError: a text cannot be read, or is too short.
    """
    tokenizer = load_decoder_tokenizer(keys)
    streams = {}
    for split in keys.corpus.splits:
        limit = keys.corpus.max_tokens.get(split)
        texts, identity = keys.corpus.texts(split), keys.corpus.identity(split)
        streams[split] = kept_stream(texts, identity, tokenizer, limit, f"corpus.{split}")
    reading, words = reading_of(keys, tokenizer), ()
    if keys.last_words is not None:
        texts = map("".join, texts_of(keys.last_words, "test", keys.corpus.column, "last_words"))
        words = last_word_rows(texts, tokenizer, reading, "last_words")
    teacher = load_teacher(keys, len(tokenizer))
    return CorpusData(streams, tokenizer, reading, words, keys.continuations, teacher)


def load_text(
    keys: CausalKeys, source: str | Path, key: str, limit: int | None = None, split: str = "test"
) -> CorpusData:
    """The texts of ``source`` as the split ``test``, or their first tokens.

    Args:
        source: a file, or a data set by name, of which ``split`` is read.
        key: what gives it, for error messages.
    """
    tokenizer = load_decoder_tokenizer(keys)
    column = "text" if keys.corpus is None else keys.corpus.column
    stream = stream_of(texts_of(str(source), split, column, key), tokenizer, limit, key)
    return CorpusData({"test": stream}, tokenizer, reading_of(keys, tokenizer))


def windows_of(keys: CausalKeys, path: Path | None, limit: int) -> list[Tensor]:
    """The first tokens of a file, or of the training text, in disjoint windows: token ids (1, window) each.

    Raises:
        ConfigurationError: there is no text, or it cannot be read.
    """
    if path is not None:
        stream = load_text(keys, path, "calibration.file", limit, "train").streams["test"]
    elif keys.corpus is not None and "train" in keys.splits:
        texts, identity = keys.corpus.texts("train"), keys.corpus.identity("train")
        limits = keys.corpus.max_tokens.get("train")
        stream = kept_stream(texts, identity, load_decoder_tokenizer(keys), limits, "corpus.train")
    else:
        raise ConfigurationError(
            "Key 'calibration.file' names a text if the run has no training text; got none: give one."
        )
    ids = torch.from_numpy(stream.ids[:limit].astype("int64"))
    return [window[None] for window in ids.split(keys.window) if len(window) > 1]


def reading_of(keys: CausalKeys, tokenizer: PreTrainedTokenizerBase) -> Reading:
    """How the run reads texts."""
    bos = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return Reading(keys.window, keys.stride, keys.bos, bos)
