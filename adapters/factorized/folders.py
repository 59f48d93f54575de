"""Causal language models in folders, for the commands of this package: loaded, with their tokenizer, and written.

A folder is written completely or not at all.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from adapters.saved.folder import check_is_new, create_folder
from adapters.validation import ConfigurationError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
LONGEST_REASON = 300
"""Characters of what a library says about a model that it cannot load; it may list every architecture it knows."""
CHARACTERS = 16
"""More characters than a token has on average: so many per token are read of a text."""


def load_model(location: str, dtype: str = "auto") -> PreTrainedModel:
    """A causal language model in evaluation mode, from a folder or by its name on the hub.

    Raises:
        ConfigurationError: it cannot be loaded, or lacks weights.
    """
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            location,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            local_files_only=Path(location).is_dir(),
            trust_remote_code=False,
            output_loading_info=True,
        )
        if missing := sorted(loaded["missing_keys"]):
            raise ValueError(f"{len(missing)} of its weights are missing and would be random, such as {missing[0]}")
        return model.eval()
    except (OSError, ValueError) as error:
        reason = textwrap.shorten(str(error), LONGEST_REASON, placeholder=" ...").removesuffix(".")
        raise ConfigurationError(
            f"A model is a folder or the name of a causal language model; got {location!r}: {reason}."
        ) from error


def load_tokenizer(location: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model; None for a folder without one."""
    folder = Path(location)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    return AutoTokenizer.from_pretrained(location, local_files_only=folder.is_dir(), trust_remote_code=False)


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, destination: Path) -> None:
    """Write a new folder with the model and its tokenizer.

    Raises:
        CheckpointError: the folder is there already and not empty.
    """
    check_is_new(destination)

    def write(new: Path) -> None:
        model.save_pretrained(new)
        if tokenizer is not None:
            tokenizer.save_pretrained(new)

    create_folder(destination, write)


def windows(file: Path, tokenizer: PreTrainedTokenizerBase, first: int, count: int, window: int) -> Iterator[Tensor]:
    """Token ids (1, window) from a text file, the last window shorter; nothing is padded.

    Args:
        first, count: which tokens of the text.

    Raises:
        ConfigurationError: the file cannot be read as text, or has fewer than ``first`` + 2 tokens.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read((first + count) * CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"A calibration text is a readable text file; got {file}: {error}.") from error
    ids = tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][:, first : first + count]
    if ids.shape[1] < 2:
        raise ConfigurationError(
            f"A calibration text has tokens after the first {first}; got {file}, which has none: use a longer text, or "
            "fewer tokens."
        )
    yield from ids.split(window, dim=1)
