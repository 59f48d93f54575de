"""Measure training steps of T5-base with random weights: time, peak memory, merging, evaluation.

    python -m benchmarks.training_step                     batch 8 x 128; about ten minutes on two cores
    python -m benchmarks.training_step --batch 32          four times the activations
    python -m benchmarks.training_step --device cuda --dtype bfloat16
    python -m benchmarks.training_step --quick             a small T5, in seconds, as a smoke test

A step is forward, backward and AdamW. Every method has a model of its own with equal frozen weights; rounds are
interleaved, so that disturbances affect all methods. Peak memory is measured in a fresh process for each method, above
the memory after building the model. The lower bound trains nothing: its gradient flows to the embedding, one attention
further than to the first adapter.
"""

import argparse
import json
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

import adapters
from benchmarks.contraction_tables import markdown, three_digits
from benchmarks.machine import describe_machine
from benchmarks.options import parser_of
from benchmarks.peers import installed
from benchmarks.timing import interleaved
from t3nsor.contraction.clock import clocked

SIZES = {
    "base": {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_layers": 12, "num_heads": 12, "vocab_size": 32128},
    "tiny": {"d_model": 128, "d_ff": 512, "d_kv": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 512},
}
FEED_FORWARD = {"sublayers": ["feed_forward"]}
CHEAP = {"kind": "tt_lora", "shape_mode": "cheapest", **FEED_FORWARD}
METHODS: dict[str, Any] = {
    "frozen": None,
    "full fine-tuning": {"kind": "none"},
    "PEFT LoRA r=8": "lora",
    "compacter": {"kind": "compacter", "n": 4, **FEED_FORWARD},
    "bottleneck": {"kind": "bottleneck", **FEED_FORWARD},
    "tt_lora cheapest, rank 2": {**CHEAP, "rank": 2},
    "tt_lora cheapest, rank 4": {**CHEAP, "rank": 4},
    "tt_lora cheapest, rank 8": {**CHEAP, "rank": 8},
    "tt_lora ascending, rank 4": {**CHEAP, "rank": 4, "shape_mode": "ascending"},
    "tt_adapter, rank 4": {"kind": "tt_adapter", "rank": 4, **FEED_FORWARD},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements, print the tables and write JSON and Markdown."""
    options = parse(arguments)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    size = "tiny" if options.quick else "base"
    methods = [name for name, method in METHODS.items() if method != "lora" or installed("peft")]
    if left_out := METHODS.keys() - methods:
        print(f"Skipped, because PEFT is not installed: {', '.join(left_out)}")
    peaks = {name: peak_memory(name, size, options) for name in methods}
    torch.manual_seed(0)
    models = {name: build(name, size, options.dtype, device) for name in methods}
    steps = {name: training_step(model, batch(model, options, device)) for name, model in models.items()}
    times = interleaved(steps, options.rounds, device)
    record = {
        "machine": describe_machine(device),
        "model": f"T5-{size}, {options.dtype}, batch {options.batch} x {options.length}",
        "rounds": options.rounds,
        "methods": {
            name: {
                "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
                "seconds": list(times[name]),
                "peak_mib": peaks[name],
            }
            for name, model in models.items()
        },
        "evaluation": evaluation(models["tt_lora cheapest, rank 4"], models["frozen"], options, device),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "training_step.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    tables = [step_table(record), evaluation_table(record)]
    console = Console()
    for table in tables:
        console.print(table)
    text = "\n\n".join(markdown(table) for table in tables) + "\n"
    (options.out / "training_step.md").write_text(text, encoding="utf-8")
    console.print(f"Written: {options.out}/training_step.json, training_step.md")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = parser_of("benchmarks.training_step", __doc__)
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="tokens per row, for encoder and decoder")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    return parser.parse_args(arguments)


def build(name: str, size: str, dtype: str, device: torch.device) -> nn.Module:
    """Return a T5 with random weights and one method's adapters, in training mode without dropout in the base."""
    torch.manual_seed(0)
    config = T5Config(**SIZES[size], dropout_rate=0.0, decoder_start_token_id=0, use_cache=False)
    model = T5ForConditionalGeneration(config).to(device, getattr(torch, dtype)).train()
    method = METHODS[name]
    if method is None:
        return model.requires_grad_(False)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(r=8, target_modules=["wi", "wo"], lora_dropout=0.0))
    return adapters.attach(model, adapters.AdapterConfig.from_dict(method))


def batch(model: nn.Module, options: argparse.Namespace, device: torch.device) -> dict[str, torch.Tensor]:
    """Return random rows for encoder and decoder."""
    generator = torch.Generator().manual_seed(1)
    shape = (options.batch, options.length)
    ids = torch.randint(1, model.config.vocab_size, (2, *shape), generator=generator).to(device)
    return {"input_ids": ids[0], "labels": ids[1]}


def training_step(model: nn.Module, rows: dict[str, torch.Tensor]) -> Callable[[], None]:
    """Return a function that runs one step; without trainable parameters the gradient flows to the embedding."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4) if trainable else None
    embedding = None if trainable else model.get_input_embeddings()

    def step() -> None:
        if optimizer is None:
            inputs = embedding(rows["input_ids"]).detach().requires_grad_()
            model(inputs_embeds=inputs, labels=rows["labels"]).loss.backward()
            return
        model(**rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak_memory(name: str, size: str, options: argparse.Namespace) -> float:
    """Return the peak MiB of three steps above the memory of the built model, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (name, size, options))


def _peak_memory(name: str, size: str, options: argparse.Namespace) -> float:
    device = torch.device(options.device)
    model = build(name, size, options.dtype, device)
    step = training_step(model, batch(model, options, device))
    reset_peak(device)
    before = resident(device)
    for _ in range(3):
        step()
    return round(highest(device) - before, 1)


def reset_peak(device: torch.device) -> None:
    """Reset the peak memory statistics."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def resident(device: torch.device) -> float:
    """Return the MiB in use."""
    return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else _status("VmRSS")


def highest(device: torch.device) -> float:
    """Return the peak MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return _status("VmHWM")


def _status(name: str) -> float:
    """Return the MiB of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**10


def evaluation(
    adapted: nn.Module, dense: nn.Module, options: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Return times of a forward pass, unmerged and merged against dense, and of merging and unmerging all layers."""
    adapted.eval()
    dense.eval()
    rows = batch(adapted, options, device)

    def forward(model: nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                model(**rows)

        return run

    adapters.unmerge(adapted)
    unmerged = interleaved({"dense": forward(dense), "unmerged": forward(adapted)}, options.rounds, device)
    merging, unmerging = [], []
    for _ in range(options.rounds + 1):
        merging.append(clocked(lambda: adapters.merge(adapted), device))
        unmerging.append(clocked(lambda: adapters.unmerge(adapted), device))
    adapters.merge(adapted)
    merged = interleaved({"dense": forward(dense), "merged": forward(adapted)}, 3 * options.rounds, device)
    adapters.unmerge(adapted)
    return {
        "unmerged / dense": [unmerged["unmerged"].median / unmerged["dense"].median],
        "merged / dense": [merged["merged"].median / merged["dense"].median],
        "merge ms": [round(1e3 * seconds, 2) for seconds in sorted(merging[1:])],
        "unmerge ms": [round(1e3 * seconds, 3) for seconds in sorted(unmerging[1:])],
    }


def step_table(record: dict[str, Any]) -> Table:
    """Return a table of times and memory of all methods, against the lower bound and LoRA."""
    methods = record["methods"]
    floor = methods["frozen"]["seconds"][0]
    lora = methods.get("PEFT LoRA r=8", {"seconds": [math.nan]})["seconds"][0]
    table = Table(
        "method", "trainable", "s / step", "quartiles", "/ frozen", "/ LoRA", "peak MiB", title=record["model"]
    )
    for name, row in methods.items():
        median, low, high, _ = row["seconds"]
        spread, ratios = f"{three_digits(low)}-{three_digits(high)}", (f"{median / floor:.2f}", f"{median / lora:.2f}")
        table.add_row(name, f"{row['trainable']:,}", three_digits(median), spread, *ratios, f"{row['peak_mib']:,.0f}")
    return table


def evaluation_table(record: dict[str, Any]) -> Table:
    """Return a table of the costs and gains of merging."""
    table = Table("evaluation", "median", "all", title="tt_lora cheapest, rank 4, evaluated")
    for name, values in record["evaluation"].items():
        table.add_row(name, f"{values[len(values) // 2]:.3f}", ", ".join(f"{value:.3f}" for value in values))
    return table


if __name__ == "__main__":
    sys.exit(main())
