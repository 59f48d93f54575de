"""Time a tensor-train delta on one frozen layer: each strategy, the plan of "auto", and other libraries.

    python -m benchmarks.contraction                         the whole grid; some hours on two CPU cores
    python -m benchmarks.contraction --quick                 a small part of it, in a minute or two
    python -m benchmarks.contraction --device cuda           the same on a GPU
    python -m benchmarks.contraction --layers 768x3072 --tokens 1024 --d 3 --rank 4 --dtypes float32

Each cell times the forward and backward pass of one layer: y, and the gradients of x and of all trainable parameters.
Times are medians of interleaved rounds; ratios are to the frozen layer (its product and the gradient of its input) and
to PEFT's LoRA of rank 8 in the same rounds. "auto" and the single strategies are the product alone, "tt_lora" is "auto"
in an adapted layer of a model. A strategy that takes more than three times as long as the fastest one is timed only
once, after a warm-up. Cells that are already in the file in `--out` are skipped, so that a run can be resumed.
"""

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import t3nsor as t3
from adapters.saved.files import replace_file
from benchmarks import peers
from benchmarks.contraction_tables import SINGLE
from benchmarks.machine import describe_machine
from benchmarks.options import parser_of
from benchmarks.timing import interleaved
from t3nsor.contraction.device import coefficients
from t3nsor.contraction.materialised import Fused
from t3nsor.contraction.planner import Problem, fastest
from t3nsor.contraction.strategy import Wanted

LAYERS = ("768x3072", "3072x768", "1024x4096", "512x2048")
TOKENS = (256, 1024, 4096, 16384)
CORES = (2, 3, 4, 5)
RANKS = (2, 4, 8, 16)
MODES = ("cheapest", "ascending")
DTYPES = ("float32", "bfloat16")
AXES = ("dtype", "layer", "tokens", "mode", "d", "rank")
QUICK = {"layers": LAYERS[:1], "tokens": TOKENS[1:2], "d": (3,), "rank": (4, 8), "modes": MODES, "dtypes": DTYPES[:1]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the requested grid, print it, and write JSON and plots."""
    options = parse(arguments)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "contraction.json"
    used = {str(dtype): asdict(coefficients(device.type, dtype)) for dtype in (torch.float32, torch.bfloat16)}
    record = read_record(path, {**describe_machine(device), "coefficients": used})
    known = {tuple(cell[name] for name in AXES) for cell in record["cells"]}
    axes = (options.dtypes, options.layers, options.tokens, options.modes, options.d, options.rank)
    missing = [cell for cell in itertools.product(*axes) if cell not in known]
    for cell in tqdm(missing, desc="cells", disable=None):
        record["cells"].append(measure_cell(*cell, rounds=options.rounds, device=device))
        replace_file(path, functools.partial(write, record))
    from benchmarks.contraction_tables import show

    show(record, options.out)
    return 0


def read_record(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """Return the record to add cells to: the one in the file if an earlier run on this machine wrote it.

    Raises:
        SystemExit: the file was not written by this benchmark, or on another machine or with other coefficients.
    """
    if not path.exists():
        return {"machine": machine, "cells": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        other, _ = record["machine"], record["cells"]
    except (ValueError, TypeError, KeyError):
        raise SystemExit(
            f"Only a file written by this benchmark can be resumed; got {path}: choose another folder with --out."
        ) from None
    if other != machine:
        raise SystemExit(
            f"All cells of a file must be of one machine, with one set of libraries and coefficients; got {path} of "
            f"{other} on {machine}: choose another folder with --out."
        )
    return record


def write(record: dict[str, Any], path: Path) -> None:
    """Write the record as JSON, one cell per line."""
    cells = ",\n".join(map(json.dumps, record["cells"]))
    path.write_text(f'{{"machine": {json.dumps(record["machine"])}, "cells": [\n{cells}\n]}}\n', encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line, with the values of `--quick` filled in."""
    parser = parser_of("benchmarks.contraction", __doc__)
    parser.add_argument("--quick", action="store_true", help="a small part of the grid")
    parser.add_argument("--layers", nargs="+", metavar="INxOUT")
    parser.add_argument("--tokens", type=int, nargs="+")
    parser.add_argument("--d", type=int, nargs="+", help="how many cores")
    parser.add_argument("--rank", type=int, nargs="+")
    parser.add_argument("--modes", nargs="+", help="how shapes are chosen")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES)
    options = parser.parse_args(arguments)
    whole = {"layers": LAYERS, "tokens": TOKENS, "d": CORES, "rank": RANKS, "modes": MODES, "dtypes": DTYPES}
    for name, values in (QUICK if options.quick else whole).items():
        if getattr(options, name) is None:
            setattr(options, name, values)
    return options


def measure_cell(
    dtype: str, layer: str, tokens: int, mode: str, d: int, rank: int, rounds: int, device: torch.device
) -> dict[str, Any]:
    """Return the times of one cell by candidate, with the chosen plan and the parameter counts."""
    torch.manual_seed(0)
    in_features, out_features = map(int, layer.split("x"))
    options = {"device": device, "dtype": getattr(torch, dtype)}
    linear = nn.Linear(in_features, out_features, bias=False, **options).requires_grad_(False)
    delta = t3.TTLinear(in_features, out_features, False, d=d, tt_rank=rank, shape_mode=mode, device=device)
    x = torch.randn(tokens, in_features, **options).requires_grad_()
    g = torch.randn(tokens, out_features, **options)
    problem = Problem.of(x, delta.live_cores(), linear.weight)
    plan = fastest(problem)
    single = single_strategies(problem)
    with_others = (d, rank, mode) == (3, 8, "ascending")
    candidates = candidates_of(linear, delta, single, with_others)
    contenders = {f"{SINGLE}{name}" for name in single}
    steps = {name: step(candidate, x, g) for name, candidate in candidates.items()}
    timings = interleaved(steps, rounds, device, contenders)
    return {
        "dtype": dtype,
        "layer": layer,
        "tokens": tokens,
        "mode": mode,
        "d": d,
        "rank": rank,
        "raw_shape": [list(side) for side in delta.raw_shape],
        "plan": str(plan),
        "parameters": {name: c.parameters for name, c in candidates.items() if not name.startswith(SINGLE)},
        "seconds": {
            name: [*(round(time, 7) for time in timing[:3]), timing.rounds] for name, timing in timings.items()
        },
    }


def candidates_of(
    linear: nn.Linear, delta: t3.TTLinear, single: Sequence[str], with_others: bool
) -> dict[str, peers.Candidate]:
    """Return what a cell times, by name; `with_others` adds other libraries, full fine-tuning, and core after core."""
    in_float32 = linear.weight.dtype == torch.float32
    candidates = {"frozen": peers.frozen(linear), "auto": peers.tensor_train(linear, delta, "auto")}
    candidates["tt_lora"] = peers.adapted(linear, delta)
    candidates |= {f"{SINGLE}{name}": peers.tensor_train(linear, delta, name) for name in single}
    if peers.installed("peft"):
        candidates["PEFT LoRA"] = peers.peft(linear, "LoRA")
        if not in_float32:
            candidates["PEFT LoRA, all 16 bits"] = peers.peft(linear, "LoRA", same_dtype=True)
    candidates["LoRA by this engine"] = peers.lora(linear)
    if with_others:
        candidates["full"] = peers.fully_trained(linear)
        candidates["core after core"] = peers.core_after_core(linear, delta)
        if peers.installed("peft"):
            candidates |= {f"PEFT {kind}": peers.peft(linear, kind) for kind in ("LoKr", "LoHa", "IA3")}
        if peers.installed("tltorch") and in_float32:
            for implementation in ("factorized", "reconstructed"):
                candidates[f"tensorly-torch {implementation}"] = peers.tensorly_torch(linear, delta, implementation)
    return candidates


def single_strategies(problem: Problem) -> list[str]:
    """Return plans of one strategy for the product, the gradient of x and, if possible, the gradients of the cores.

    "fused" does not apply to the gradients of the cores: it is combined with each of the other strategies. Strategies
    that the planner excludes for their memory are excluded here too.
    """
    for_both, for_cores = problem.strategies(Wanted.BOTH), problem.strategies(Wanted.CORES)
    names = []
    for strategy in problem.strategies():
        if strategy in for_both:
            names.append(str(strategy))
        elif isinstance(strategy, Fused):
            names += [f"{strategy}, {strategy}, {other}" for other in for_cores]
    return names


def step(candidate: peers.Candidate, x: Tensor, g: Tensor):
    """Return a function that computes y and all gradients once."""

    def run() -> None:
        torch.autograd.grad(candidate.product(x), [x, *candidate.trainable], g)

    return run


if __name__ == "__main__":
    sys.exit(main())
