"""Tiny random decoders with a byte-level tokenizer, made here."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

END = "<end>"
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer(**options: str) -> PreTrainedTokenizerFast:
    """One token for each byte, and an end of sequence, which is not its padding."""
    vocabulary = {END: 0} | {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 1)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, **options)


def tiny_model(model_type: str, size: int = 257) -> PreTrainedModel:
    """A random model of one of four architectures, in float32, in evaluation mode."""
    ends = {"vocab_size": size, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config: AutoConfig = {
        "gpt2": lambda: GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=128, **ends, **NO_DROPOUT["gpt2"]),
        "llama": lambda: LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            **ends,
        ),
        "opt": lambda: OPTConfig(
            hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16, **ends
        ),
        "bloom": lambda: BloomConfig(hidden_size=16, n_layer=2, n_head=2, **ends),
    }[model_type]()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)  # so that what a model reads matters
    return model


NO_DROPOUT = {"gpt2": {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}}


def save_model(directory: Path, model_type: str = "llama", **options: str) -> Path:
    """Write a tiny model and its tokenizer into a folder, which is returned."""
    tiny_model(model_type).save_pretrained(directory)
    byte_tokenizer(**options).save_pretrained(directory)
    return directory
