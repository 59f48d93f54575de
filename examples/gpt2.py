"""Train GPT-2 to continue a periodic sequence.

    python -m examples.gpt2

Four random tokens repeat; from the second period on, the next token can be predicted. The adapter is a tensor train of
three cores beside each weight of GPT-2, whose Conv1D layers store it as (in, out).
"""

import tempfile
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from adapters.peft import TensorTrainConfig
from examples._loop import Batch, held_out, measure, report, train, trainable_parameters

PERIOD, TIMES, TOKENS = 4, 3, 12
SETTING = {"rank": 8, "target_modules": ["c_attn", "c_proj", "c_fc"]}


def base() -> GPT2LMHeadModel:
    """Make a small GPT-2 with random weights, the same at every call."""
    torch.manual_seed(0)
    size = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": PERIOD * TIMES, "initializer_range": 0.1}
    tokens = {"vocab_size": TOKENS, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**size, **tokens))


def periodic(generator: torch.Generator) -> Batch:
    """Draw 64 sequences; the loss excludes the first period, which is not predictable."""
    tokens = torch.randint(TOKENS, (64, PERIOD), generator=generator).repeat(1, TIMES)  # (64, 12)
    labels = tokens.clone()
    labels[:, :PERIOD] = -100
    return {"input_ids": tokens, "labels": labels}


def main() -> dict[str, Any]:
    model = get_peft_model(base(), TensorTrainConfig(**SETTING))
    trained, test = trainable_parameters(model), held_out(periodic)
    before = measure(model, test, causal=True)
    train(model, periodic, steps=120)
    after = measure(model, test, causal=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        reloaded = measure(PeftModel.from_pretrained(base(), folder), test, causal=True)
    merged = measure(model.merge_and_unload(), test, causal=True)
    return report(trained, base(), before, after, reloaded, merged)


if __name__ == "__main__":
    main()
