"""Tiny models of many architectures, adapters far from zero in them, and dense deltas in float64."""

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from adapters.peft import TensorTrainConfig, TensorTrainPeftLinear
from adapters.peft.layer import TensorTrainPeftLayer
from adapters.peft.older_peft import needed_peft

NEEDS_NEWER_PEFT = pytest.mark.skipif(needed_peft() is not None, reason="this transformers needs a newer PEFT for it")
"""Tests of transformers' own adapter methods."""

TOKENS = torch.arange(1, 9).reshape(2, 4)


def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0)).eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 20,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "initializer_range": 0.3,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)).eval()


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 20,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "initializer_range": 0.3,
    }
    return BertForSequenceClassification(BertConfig(**sizes, num_attention_heads=2)).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 8, "initializer_range": 0.3}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, initializer_range=0.3)).eval()


def primes() -> nn.Sequential:
    """Linears of prime sizes, 31 -> 37 -> 31 -> 37."""
    torch.manual_seed(0)
    linears = [nn.Linear(31, 37), nn.Linear(37, 31), nn.Linear(31, 37)]
    return nn.Sequential(linears[0], nn.Tanh(), linears[1], nn.Tanh(), linears[2]).eval()


def called(model: nn.Module) -> Tensor:
    """The output of the model for a fixed input of its kind, differentiable."""
    kind = getattr(getattr(model, "config", None), "model_type", "custom")
    if kind == "vit":
        return model(pixel_values=torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8).to(model.dtype)).logits
    if kind == "custom":
        return model(torch.linspace(-1, 1, 62).reshape(2, 31))
    return model(input_ids=TOKENS, **({"decoder_input_ids": TOKENS} if kind == "t5" else {})).logits


@torch.no_grad()  # kernels with and without gradients round differently, in the base model already
def logits(model: nn.Module) -> Tensor:
    return called(model)


def adapted(base: PreTrainedModel | None = None, **fields) -> PeftModel:
    """A base, the tiny T5 by default, with deltas far from zero."""
    return scrambled(get_peft_model(t5() if base is None else base, TensorTrainConfig(**{"rank": 3, **fields})).eval())


@torch.no_grad()
def scrambled(model: nn.Module, name: str = "default", seed: int = 1) -> nn.Module:
    """The model with random values in all of one adapter, except in the origin that its layers subtract again."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, TensorTrainPeftLayer) and name in layer.tt_lora_delta:
            for path, parameter in layer.tt_lora_delta[name].named_parameters():
                if "origin" not in path:
                    parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


def layers(model: nn.Module) -> dict[str, TensorTrainPeftLinear]:
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, TensorTrainPeftLinear)}


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def dense_delta(
    layer: TensorTrainPeftLinear, name: str = "default", shape: tuple[int, int] | None = None
) -> np.ndarray:
    """s T (out, in) of three cores (r, m, n, s), in float64."""
    delta = layer.tt_lora_delta[name]
    cores = [core.detach().double().numpy() for core in delta.linear.cores]
    full = np.einsum("amnb,bpqc,crsd->mprnqs", *cores)  # (1, m1, n1, b) x (b, m2, n2, c) x (c, m3, n3, 1)
    return delta.scaling * full.reshape(layer.base_layer.weight.shape if shape is None else shape)


def two_adapters(base: PreTrainedModel | None = None) -> PeftModel:
    """The adapters "default" and "second", with different ranks and partly different targets."""
    model = adapted(base, target_modules=["wi", "q"])
    model.add_adapter("second", TensorTrainConfig(rank=2, d=3, target_modules=["wi", "wo"], delta_bias="dense"))
    return scrambled(model, "second", seed=2).eval()


MODELS = [
    pytest.param(t5, None, 8, id="t5"),
    pytest.param(t5, "all-linear", 32, id="t5, every linear"),
    pytest.param(llama, None, 4, id="llama"),
    pytest.param(llama, ["up_proj", "down_proj"], 4, id="llama, feed-forward"),
    pytest.param(bert, r".*\.intermediate\.dense", 2, id="bert, by pattern"),
]
