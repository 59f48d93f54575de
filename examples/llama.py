"""Train Llama to continue an arithmetic progression modulo 11.

    python -m examples.llama

    4 7 10 2 5 8 ...        from the third number on, the next one can be predicted

The adapter is one tensor for the whole model, as in MetaTT (arXiv:2506.09105): the delta of matrix m in layer l is
G_1 G_2[l] G_3[m] G_4; layers share all cores but G_2[l], and matrices all but G_3[m].
"""

import tempfile
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from adapters.peft import TensorTrainConfig
from examples._loop import Batch, held_out, measure, report, train, trainable_parameters

MODULUS, LENGTH = 11, 8
SETTING = {
    "modes": ["in", "layer", "matrix", "out"],
    "rank": 24,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
}


def base() -> LlamaForCausalLM:
    """Make a small Llama with random weights, the same at every call."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": MODULUS, "bos_token_id": 0, "eos_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(initializer_range=0.2, **size, **tokens))


def progressions(generator: torch.Generator) -> Batch:
    """Draw 64 sequences start + i step; the loss excludes the first two numbers, which are not predictable."""
    start = torch.randint(MODULUS, (64, 1), generator=generator)
    step = torch.randint(1, MODULUS, (64, 1), generator=generator)
    numbers = (start + step * torch.arange(LENGTH)) % MODULUS  # (64, 8)
    labels = numbers.clone()
    labels[:, :2] = -100
    return {"input_ids": numbers, "labels": labels}


def main() -> dict[str, Any]:
    model = get_peft_model(base(), TensorTrainConfig(**SETTING))
    trained, test = trainable_parameters(model), held_out(progressions)
    before = measure(model, test, causal=True)
    train(model, progressions, steps=200, learning_rate=2e-2)
    after = measure(model, test, causal=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        reloaded = measure(PeftModel.from_pretrained(base(), folder), test, causal=True)
    merged = measure(model.merge_and_unload(), test, causal=True)
    return report(trained, base(), before, after, reloaded, merged)


if __name__ == "__main__":
    main()
