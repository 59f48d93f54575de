"""The frozen model and its tokenizer: from a directory, the local cache or the hub.

Where the hub does not answer one quick question, only the cache is asked: transformers would try for most of a minute.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from adapters import ConfigurationError
from seq2seq.configuration.keys import Experiment, as_sentence
from seq2seq.tasks.hub import model_is_on_hub
from third_party.models.t5 import T5Config, T5ForConditionalGeneration


def load_tokenizer(experiment: Experiment) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer.

    Raises:
        ConfigurationError: none can be loaded from ``model_name_or_path``.
    """
    location = experiment.run.model_location
    with refusing("model_name_or_path", location):
        return AutoTokenizer.from_pretrained(location, local_files_only=only_local(location), trust_remote_code=False)


def load_backbone(experiment: Experiment, random: bool = False) -> T5ForConditionalGeneration:
    """The model in the run's dtype, pretrained or of the same architecture at random, without adapters.

    Raises:
        ConfigurationError: none can be loaded from ``model_name_or_path``.
    """
    location, dtype = experiment.run.model_location, getattr(torch, experiment.run.dtype)
    local = only_local(location)
    with refusing("model_name_or_path", location):
        if random:
            return T5ForConditionalGeneration(T5Config.from_pretrained(location, local_files_only=local)).to(dtype)
        return T5ForConditionalGeneration.from_pretrained(location, local_files_only=local, dtype=dtype)


def only_local(location: str) -> bool:
    """Whether ``location`` is a directory, or a name that can come from the cache alone."""
    return Path(location).is_dir() or not model_is_on_hub(location)


@contextlib.contextmanager
def refusing(key: str, given: str) -> Iterator[None]:
    """What a library refuses inside becomes one sentence that names the key it came from."""
    try:
        yield
    except ConfigurationError:
        raise
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, SafetensorError, StrictDataclassError) as error:
        raise ConfigurationError(f"Key {key!r} was given {given!r}, which was refused: {as_sentence(error)}") from error
