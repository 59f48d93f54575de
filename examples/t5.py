"""Train T5 to sort four numbers.

    python -m examples.t5

The adapters are attached with ``adapters.attach``, without PEFT, and combine two kinds: a sum of r Kronecker products,
which is a tensor train of two cores and rank r, beside every linear, and the pretrained layer norms. On exit,
``merged`` restores the base bit for bit.
"""

import tempfile
from typing import Any

import torch

import adapters
from examples._loop import Batch, held_out, measure, report, train, trainable_parameters
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

NUMBERS, LENGTH = 10, 4
SETTING = [
    {"kind": "tt_lora", "d": 2, "rank": 4, "target_modules": ["q", "k", "v", "o", "wi", "wo"]},
    {"kind": "layer_norm"},
]


def base() -> T5ForConditionalGeneration:
    """Make a small T5 with random weights, the same at every call."""
    torch.manual_seed(0)
    size = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}
    return T5ForConditionalGeneration(
        T5Config(vocab_size=NUMBERS + 2, decoder_start_token_id=0, dropout_rate=0, **size)
    )


def lists(generator: torch.Generator) -> Batch:
    """Draw 64 lists of numbers, as tokens from 2 on (0 is padding, 1 the end), and the same lists sorted."""
    tokens = 2 + torch.randint(NUMBERS, (64, LENGTH), generator=generator)  # (64, 4)
    return {"input_ids": tokens, "labels": tokens.sort(dim=1).values}


def main() -> dict[str, Any]:
    model = adapters.attach(base(), SETTING)
    trained, test = trainable_parameters(model), held_out(lists)
    before = measure(model, test)
    train(model, lists, steps=120)
    after = measure(model, test)
    with tempfile.TemporaryDirectory() as folder:
        adapters.save(model, folder)
        reloaded = measure(adapters.load(base(), folder), test)
    with adapters.merged(model):
        merged = measure(model, test)
    return report(trained, base(), before, after, reloaded, merged)


if __name__ == "__main__":
    main()
