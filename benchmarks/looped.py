"""Measure training steps of looped transformers: in float32 and bfloat16, and of several seeds one by one and stacked.

    python -m benchmarks.looped --threads 1      a looped model, one with a window, and one as deep
    python -m benchmarks.looped --device cuda

A step is forward, the mean squared error over the loops that are read out, backward and AdamW, at the sizes of
``configs/looped/linear_small.json``: 32 prompts of 8 points in 3 dims, width 64. bfloat16 is torch's autocast. Stacked
seeds are one batch of ``torch.func.vmap`` over the models' stacked parameters, each with prompts of its own:

    x (seeds, batch, length, in),  parameters (seeds, ...)  ->  predictions (seeds, loops, batch, length, 1)
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from benchmarks.contraction_tables import markdown, three_digits
from benchmarks.machine import describe_machine
from benchmarks.options import parser_of
from benchmarks.timing import interleaved
from third_party.models.looped import LoopedConfig, LoopedModel

SIZES = {"hidden_size": 64, "num_heads": 4, "input_size": 3, "output_size": 1}
BATCH, LENGTH, SEEDS = 32, 16, 3
MODELS: dict[str, dict[str, Any]] = {
    "L = 1, b = 8": {"n_layer": 1, "loops": {"num_loops": 8}},
    "L = 1, b = 8, T = 4": {"n_layer": 1, "loops": {"num_loops": 8, "window": 4}},
    "L = 8": {"n_layer": 8, "loops": {"num_loops": 1}},
}
Step = Callable[[], Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements, print the table and write JSON and Markdown."""
    options = parse(arguments)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    steps: dict[tuple[str, str], Step] = {}
    for name in MODELS:
        steps[name, "float32"] = step_of(build(name, 1, device), device)
        steps[name, "bfloat16"] = step_of(build(name, 1, device), device, autocast=True)
        steps[name, "stacked"] = stacked_step(build(name, SEEDS, device), device)
    times = interleaved(steps, options.rounds, device)
    rows = {name: {way: times[name, way].median for way in ("float32", "bfloat16", "stacked")} for name in MODELS}
    record = {"machine": describe_machine(device), "rounds": options.rounds, "seconds": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "looped.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    table = table_of(rows)
    Console().print(table)
    (options.out / "looped.md").write_text(markdown(table) + "\n", encoding="utf-8")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    return parser_of("benchmarks.looped", __doc__).parse_args(arguments)


def build(name: str, seeds: int, device: torch.device) -> list[LoopedModel]:
    """Return models in training mode, of the seeds 0, 1, ..."""
    models = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        config = LoopedConfig(**SIZES, **MODELS[name], positions={"number": LENGTH})
        models.append(LoopedModel(config).to(device).train())
    return models


def prompts(seeds: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return inputs (seeds, batch, length, in) and targets (seeds, batch, length, 1)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(seeds, BATCH, LENGTH, SIZES["input_size"], generator=generator)
    return x.to(device), x.sum(-1, keepdim=True).to(device)


def step_of(models: list[LoopedModel], device: torch.device, autocast: bool = False) -> Step:
    """Return a step of the first model; the loss is what it returns."""
    [model, *_] = models
    x, y = (each[0] for each in prompts(1, device))
    optimizer = optimizer_of(model.parameters())

    def step() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            predictions = model(x).by_loop
        loss = (predictions.float() - y).square().mean()
        return updated(loss, optimizer)

    return step


def stacked_step(models: list[LoopedModel], device: torch.device) -> Step:
    """Return a step of all models at once; the sum of their losses is what it returns."""
    x, y = prompts(len(models), device)
    parameters, buffers = stack_module_state(models)
    skeleton = models[0]
    skeleton.stack.set_attn_implementation("eager")  # vmap has no rule for torch's own attention on a CPU
    optimizer = optimizer_of(parameters.values())

    def loss_of(values: dict[str, Tensor], fixed: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return (functional_call(skeleton, (values, fixed), inputs).by_loop - targets).square().mean()

    def step() -> Tensor:
        return updated(vmap(loss_of, randomness="different")(parameters, buffers, x, y).sum(), optimizer)

    return step


def optimizer_of(parameters: Any) -> torch.optim.Optimizer:
    """Return AdamW for the parameters that train."""
    return torch.optim.AdamW([p for p in parameters if p.requires_grad], lr=1e-4)


def updated(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Take a step; return the loss before."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def table_of(rows: dict[str, dict[str, float]]) -> Table:
    """Return the times of float32, and the ratios to it."""
    title = f"Training steps of {BATCH} prompts; {SEEDS} seeds against {SEEDS} steps of one"
    table = Table("model", "ms / step", "/ L = 8", "bfloat16 / float32", "stacked / in turn", title=title)
    deep = rows["L = 8"]["float32"]
    for name, row in rows.items():
        one = row["float32"]
        ratios = one / deep, row["bfloat16"] / one, row["stacked"] / (SEEDS * one)
        table.add_row(name, three_digits(1e3 * one), *(f"{ratio:.2f}" for ratio in ratios))
    return table


if __name__ == "__main__":
    sys.exit(main())
