"""A model's tokenizer, from a directory, the local cache or the hub; without network, only the cache is asked."""

from itertools import chain
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from adapters import ConfigurationError
from seq2seq.errors import refusing
from seq2seq.tasks.hub import only_local

VOCABULARIES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt")
"""Files of which a tokenizer has at least one; without any, transformers would make an empty tokenizer."""

MAX_UNKNOWN = 0.3
"""The share of unknown tokens above which a tokenizer does not fit the texts."""

SAMPLE_ROWS = 100
"""Rows of a split in which unknown tokens are counted."""


def load_tokenizer(location: str, key: str = "model_name_or_path") -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Args:
        location: a directory, or a name in the cache or on the hub.
        key: what gives it, for error messages.

    Raises:
        ConfigurationError: it cannot be loaded from there.
    """
    if Path(location).is_dir() and not has_tokenizer(location):
        raise ConfigurationError(
            f"Key {key!r} names a model with a tokenizer; got {location!r}, which has none of "
            f"{', '.join(VOCABULARIES)}: copy the tokenizer of the model into it."
        )
    with refusing(key, location):
        tokenizer = AutoTokenizer.from_pretrained(
            location, local_files_only=only_local(location), trust_remote_code=False
        )
    return tokenizer


def has_tokenizer(location: str) -> bool:
    """Whether a model has a vocabulary."""
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    local = only_local(location)
    return any(cached_file(location, name, local_files_only=local, **quiet) for name in VOCABULARIES)


def check_vocabulary(encoded: Dataset, tokenizer: PreTrainedTokenizerBase, model: str, split: str) -> None:
    """Refuse a tokenizer that does not know the words of a split.

    Args:
        encoded: the split's ``input_ids``.
        model: the value of ``model_name_or_path``.
        split: its name.
    """
    tokens = [*chain.from_iterable(encoded[:SAMPLE_ROWS]["input_ids"])]
    unknown = tokens.count(tokenizer.unk_token_id) / max(len(tokens), 1)
    if unknown > MAX_UNKNOWN:
        raise ConfigurationError(
            "Key 'model_name_or_path' names a model whose tokenizer knows the words of the task; got "
            f"{model!r}, which has no token for {unknown:.0%} of the {split} split: "
            "check that its vocabulary file (spiece.model or tokenizer.json) is there."
        )
