"""The decoder-only model and its tokenizer, and whether its attention is causal and keeps packed rows apart."""

import inspect
import logging

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from adapters import ConfigurationError
from seq2seq.causal.keys import CausalKeys
from seq2seq.errors import refusing
from seq2seq.tasks.hub import only_local
from seq2seq.tasks.keys import located
from seq2seq.tasks.tokenizers import load_tokenizer
from third_party.models.looped.folders import share_as_noted
from third_party.trainers import packed

logger = logging.getLogger(__name__)

LEAK = 1e-3
"""The change of logits, as a share of the largest, above which another row or a later token is seen to act on them."""


def load_decoder_tokenizer(keys: CausalKeys) -> PreTrainedTokenizerBase:
    """The tokenizer, whose padding is its end-of-sequence token if it has none of its own.

    Raises:
        ConfigurationError: it cannot be loaded, or has no end-of-sequence token.
    """
    tokenizer = load_tokenizer(keys.model_location)
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(
            "Key 'model_name_or_path' names a model whose tokenizer has an end-of-sequence token, which ends an "
            f"answer; got {keys.model_name_or_path!r} without one: set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_decoder(keys: CausalKeys, random: bool = False) -> PreTrainedModel:
    """The run's model without adapters, pretrained, or of the same architecture with random weights."""
    return load_causal_model(keys.model_location, keys.dtype, "model_name_or_path", random)


def why_not_dense(keys: CausalKeys) -> str | None:
    """Why the folder of the run's model has no dense weights; None if it has, or is not on this disk."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(keys.model_location, local_files_only=True)
    except (OSError, ValueError):
        return None  # loading the model says it
    method = (config.get("quantization_config") or {}).get("quant_method")
    if method is None:
        return None
    return f"{keys.model_name_or_path!r} holds {method} weights alone: run the model that they were made from by itself"


def load_teacher(keys: CausalKeys, vocabulary_size: int) -> PreTrainedModel | None:
    """The model that a run's model follows, in evaluation mode without gradients; None for none.

    Args:
        vocabulary_size: number of the run's tokens.

    Raises:
        ConfigurationError: it cannot be loaded, or has fewer tokens.
    """
    if keys.distill is None:
        return None
    location = keys.model_location if keys.distill.model is None else located(keys.distill.model)
    teacher = load_causal_model(location, keys.dtype, "distill.model").requires_grad_(False)
    if (size := teacher.config.get_text_config().vocab_size) < vocabulary_size:
        raise ConfigurationError(
            f"Key 'distill.model' names a model with the run's vocabulary; got {location!r} with {size} tokens instead "
            f"of {vocabulary_size}: choose one of the same family."
        )
    megabytes = sum(parameter.nbytes for parameter in teacher.parameters()) / 2**20
    logger.info("The teacher %s takes %s MiB of memory.", location, f"{megabytes:,.1f}")
    return teacher


def load_causal_model(location: str, dtype: str, key: str, random: bool = False) -> PreTrainedModel:
    """A decoder-only model, in evaluation mode.

    Args:
        location: a directory, or a name in the cache or on the hub.
        dtype: "float32" or "bfloat16".
        key: what gives it, for error messages.
        random: whether its weights are random.

    Raises:
        ConfigurationError: it cannot be loaded, lacks weights, or is not decoder-only.
    """
    options = {"local_files_only": only_local(location), "trust_remote_code": False}
    with refusing(key, location):
        config = AutoConfig.from_pretrained(location, **options)
        if config.is_encoder_decoder:
            raise ValueError(
                f"{config.model_type} is an encoder-decoder model: use the workload 'text', or a decoder-only model"
            )
        if random:
            model = share_as_noted(AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)))
        else:
            model, loaded = AutoModelForCausalLM.from_pretrained(
                location, dtype=getattr(torch, dtype), output_loading_info=True, **options
            )
            if missing := sorted(loaded["missing_keys"]):
                raise ValueError(
                    f"its weights lack {', '.join(missing)}, which would be random: choose a language model"
                )
        if sees_later_tokens(model.eval()):
            raise ValueError(
                f"each token of {type(model).__name__} sees those after it, and so the answer: use the workload "
                "'classification', or a decoder-only model"
            )
    return model


@torch.no_grad()
def sees_later_tokens(model: nn.Module) -> bool:
    """Whether logits depend on later tokens, as in a BERT, judged by two short rows that differ in the last one."""
    size = model.config.get_text_config().vocab_size
    rows = torch.tensor([[k % size for k in (1, 3, 5, last)] for last in (7, 8)], device=model.device)
    one, other = model(input_ids=rows, use_cache=False).logits[:, :-1].float()  # (2, 3, vocabulary)
    return bool((one - other).abs().max() > LEAK * one.abs().max())


@torch.no_grad()
def check_packing(model: nn.Module) -> None:
    """Refuse an architecture in which packed rows see each other, judged by the logits of two short rows.

    Raises:
        ConfigurationError: the model's type.
    """
    size = model.config.get_text_config().vocab_size
    rows = [{"input_ids": [(7 * k + shift) % size for k in range(length)]} for length, shift in ((4, 1), (5, 3))]
    batch = packed([{**row, "labels": row["input_ids"]} for row in rows])
    training = model.training
    model.eval()
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    inputs = {name: batch[name].to(model.device) for name in ("input_ids", "position_ids")}
    apart = [model(input_ids=torch.tensor([row["input_ids"]], device=model.device)).logits[0] for row in rows]
    apart = torch.cat(apart).float()  # (9, vocabulary)
    together = model(**inputs, use_cache=False).logits[0].float() if takes_positions else torch.zeros_like(apart)
    model.train(training)
    if (together - apart).abs().max() > LEAK * apart.abs().max():
        raise ConfigurationError(
            "Key 'packing' needs an architecture whose attention keeps rows of one sequence apart by their positions; "
            f"got true for {model.config.model_type!r}, in which they see each other: leave it out."
        )
