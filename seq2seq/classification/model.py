"""An encoder, a decoder or both with a head: from a directory, the local cache or the hub, or with random weights.

A head that the directory does not have, or has for another number of labels, is new: its values depend on the random
state, which a run sets by its seed.
"""

import logging
from collections.abc import Collection, Sequence

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from adapters import ConfigurationError
from adapters.base.heads import head_parameters
from adapters.saved.labels import labels_of_config
from seq2seq.errors import refusing
from seq2seq.tasks.hub import only_local

logger = logging.getLogger(__name__)


def load_classifier(
    location: str,
    labels: Sequence[str],
    dtype: str,
    tokenizer: PreTrainedTokenizerBase,
    trains_head: bool = True,
    random: bool = False,
) -> nn.Module:
    """The model without adapters, with an output for each label, or a single one for numbers.

    Args:
        location: a directory, or a name in the cache or on the hub.
        labels: the classes, in the order of the outputs; none for numbers.
        dtype: "float32" or "bfloat16".
        tokenizer: its own, whose padding token the model has to know.
        trains_head: whether a head for other labels can become one for these.
        random: whether all weights are random.

    Raises:
        ConfigurationError: it cannot be loaded from there, or has no form with a head, or one for other labels.
    """
    names = dict(enumerate(labels)) or {0: "LABEL_0"}  # transformers' name for a single output
    settings = {
        "id2label": names,
        "label2id": {label: index for index, label in names.items()},
        "problem_type": "single_label_classification" if labels else "regression",
        "pad_token_id": tokenizer.pad_token_id,
        "use_cache": False,
    }
    source = {"local_files_only": only_local(location), "trust_remote_code": False}
    with refusing("model_name_or_path", location):
        own_labels = labels_of_config(AutoConfig.from_pretrained(location, **source))
        config = AutoConfig.from_pretrained(location, **source, **settings)
        if random:
            return AutoModelForSequenceClassification.from_config(config).to(getattr(torch, dtype))
        model, loaded = _quietly_loaded(
            location, config, dtype=getattr(torch, dtype), use_safetensors=True, ignore_mismatched_sizes=True, **source
        )
    head = set(head_parameters(model))
    mismatched = {name for name, *_ in loaded["mismatched_keys"]}
    if others := sorted(mismatched - head):
        raise ConfigurationError(
            f"The weights of a model have the sizes of its config.json; got others in {location} for "
            f"{', '.join(others)}: restore the files of the model."
        )
    new = {*loaded["missing_keys"], *mismatched}
    if own_labels is not None and own_labels != list(labels) and head and not head & new:
        check_head(location, own_labels, labels, trains_head)
    warn_of_new(location, new - head)
    return model


def check_head(location: str, own_labels: Sequence[str], labels: Sequence[str], trains_head: bool) -> None:
    """Refuse a head for other labels, or for these in another order; warn of it if the head trains."""
    if not trains_head:
        raise ConfigurationError(
            f"A head that does not train has the run's labels in their order; got {list(own_labels)} in {location}, "
            f"and {list(labels)} in the run: give your own files the key 'labels' in that order, or train the head."
        )
    logger.warning(
        "The head of %s was trained for %s; it starts from there, and its outputs become %s.",
        location,
        list(own_labels),
        list(labels),
    )


def warn_of_new(location: str, missing: Collection[str]) -> None:
    """Warn of new parameters outside of the head, such as BERT's pooler, which stay random if they are frozen."""
    if others := sorted(missing):
        logger.warning(
            "%s lacks parameters outside of the head, random unless a kind trains them: %s.",
            location,
            ", ".join(others),
        )


def _quietly_loaded(location: str, config, **settings) -> tuple[nn.Module, dict]:
    """The model and what was missing, without the report of transformers, in which a new head looks like a mistake."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            location, config=config, output_loading_info=True, **settings
        )
    finally:
        transformers_logging.set_verbosity(before)
