"""Measure a training step with adapters of expert weights, beside PEFT's LoRA of the same stacks.

    python -m benchmarks.experts                    two layers of 16 experts, 512 -> 1,024, 256 tokens; a minute
    python -m benchmarks.experts --quick            a tiny model, in seconds, as a smoke test

A Mixtral with random weights, in float32 on the CPU. "Kept" is what a forward keeps for the backward besides the
Parameters, each storage once; the time is the least of several steps of forward and backward, in CPU seconds.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from adapters.peft import TensorTrainConfig
from benchmarks.contraction_tables import line

STACKS = ["experts.gate_up_proj", "experts.down_proj"]
METHODS = {
    "LoRA, r = 8": lambda: LoraConfig(r=8, target_modules=[], target_parameters=STACKS),
    "TT per expert, rank 8": lambda: TensorTrainConfig(rank=8, target_parameters=STACKS),
}
IMPLEMENTATIONS = ("grouped_mm", "eager")
HEADER = ["method", "implementation", "parameters", "kept, MiB", "CPU seconds"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every method in every implementation and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experts", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    quick = parser.parse_args(arguments).quick
    tokens = torch.arange(16 if quick else 256)[None] % 100
    print(line(HEADER))
    print(line(["---"] * len(HEADER)))
    for implementation in IMPLEMENTATIONS:
        for name, config in METHODS.items():
            model = build(config(), implementation, quick)
            parameters, _ = model.get_nb_trainable_parameters()
            kept, seconds = measure(model, tokens, 1 if quick else 4)
            print(line([name, implementation, f"{parameters:,}", f"{kept / 2**20:.1f}", f"{seconds:.2f}"]), flush=True)
    return 0


def build(config: PeftConfig, implementation: str, quick: bool) -> PeftModel:
    """The adapted model, in training mode."""
    torch.manual_seed(0)
    hidden = 32 if quick else 512
    sizes = {"vocab_size": 100, "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    model = MixtralForCausalLM(MixtralConfig(**sizes, **heads, num_local_experts=4 if quick else 16))
    model.set_experts_implementation(implementation)
    return get_peft_model(model, config).train()


def measure(model: PeftModel, tokens: Tensor, steps: int) -> tuple[int, float]:
    """Bytes kept for the backward, and the least CPU seconds of a step."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    seconds = []
    for _ in range(steps):
        start = time.process_time()
        model(input_ids=tokens, labels=tokens).loss.backward()
        seconds.append(time.process_time() - start)
    return sum(kept.values()), min(seconds)


if __name__ == "__main__":
    sys.exit(main())
