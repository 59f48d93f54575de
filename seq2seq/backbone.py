"""The frozen model and its tokenizer: from a directory, the local cache or the hub.

Where the hub does not answer one quick question, only the cache is asked: transformers would try for most of a minute.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import HfApi
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from adapters import CheckpointError, ConfigurationError
from seq2seq.arguments import Experiment, as_sentence
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

HUB_TIMEOUT = 10.0
"""Seconds until the hub counts as out of reach."""


def load_tokenizer(experiment: Experiment) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer.

    Raises:
        ConfigurationError: none can be loaded from ``model_name_or_path``.
    """
    location = experiment.run.model_location
    with refusing("model_name_or_path", location):
        return AutoTokenizer.from_pretrained(location, local_files_only=not hub_has(location))


def load_backbone(experiment: Experiment, random: bool = False) -> T5ForConditionalGeneration:
    """The model in the run's dtype, pretrained or of the same architecture at random, without adapters.

    Raises:
        ConfigurationError: none can be loaded from ``model_name_or_path``.
    """
    location, dtype = experiment.run.model_location, getattr(torch, experiment.run.dtype)
    local = not hub_has(location)
    with refusing("model_name_or_path", location):
        if random:
            return T5ForConditionalGeneration(T5Config.from_pretrained(location, local_files_only=local)).to(dtype)
        return T5ForConditionalGeneration.from_pretrained(location, local_files_only=local, dtype=dtype)


def hub_has(location: str) -> bool:
    """Whether ``location`` is no directory and the hub answers that it has such a model."""
    if Path(location).is_dir():
        return False
    try:
        HfApi().model_info(location, timeout=HUB_TIMEOUT)
    except Exception:  # whatever goes wrong on the way to the hub, the model is not to be had there now
        return False
    return True


@contextlib.contextmanager
def refusing(key: str, given: str) -> Iterator[None]:
    """What a library refuses inside becomes one sentence that names the key it came from."""
    try:
        yield
    except ConfigurationError:
        raise
    except (ValueError, OSError, ImportError, CheckpointError) as error:
        raise ConfigurationError(f"Key {key!r} was given {given!r}, which was refused: {as_sentence(error)}") from error
