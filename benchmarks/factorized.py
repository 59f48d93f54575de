"""Measure factorized linears: decoding, prefill, training steps, and memory, against dense, built products, low rank.

    python -m benchmarks.factorized --threads 1              some minutes on one core
    python -m benchmarks.factorized --threads 1 --write      and a record in docs/results/kronecker/speed.json

One linear without bias, in float32, of GPT-2's and SmolLM2's feed-forward sizes, in both directions:

    network        a `FactorizedLinear`, for which t3nsor chooses the plan at every call
    dense          the linear that it replaces
    products       r dense matrices A_i (x) B_i, built and added at every call, as in Krony-PT's code
    low rank       two dense factors with at most as many parameters
    plan NAME      the network with a fixed plan: the dense matrix built once per call ("materialised"), or factor-wise

Forward passes have 1 token (decoding), 8, 64, 1,024 and 4,096; a training step is a forward pass and the gradients of
the input and of all parameters, with 1,024 tokens. Up to 64 tokens a time is that of four layers one after another:
a model does not find its weights in the cache of a core. Times are from interleaved rounds; a ratio is the median of
the ratios within each round. Peak memory is the most that the tensors made by a training step take at a time, without
weights and input. The bars are in `benchmarks.factorized_tables`.
"""

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from adapters.factorized.configuration import FactorizedConfig
from adapters.factorized.layers import FactorizedLinear, factorized_like
from adapters.factorized.shapes import network_spec
from benchmarks.factorized_peers import contender_work, contenders, fixed_plans, plan_work, with_plan
from benchmarks.factorized_tables import FEW, tables
from benchmarks.machine import describe_machine
from benchmarks.timing import Timing, seconds_of_rounds
from t3nsor.contraction.chains import Sizes
from t3nsor.contraction.planner import Problem, fastest

CPU = torch.device("cpu")
RESULTS = Path("docs/results/kronecker/speed.json")
STEPS = (("forward", 1), ("forward", 8), ("forward", 64), ("forward", 1024), ("forward", 4096), ("training", 1024))
LAYERS_OF_FEW = 4
ROUNDS_OF_FEW = 5
"""The multiple of the rounds of many tokens that few tokens have."""
OTHERS = {
    "low rank": {"format": "low_rank", "budget": 0.5},
    "3-core train": {"format": "tensor_train", "d": 3, "budget": 0.25},  # of GPT-2 rank 66, as in configs/kronecker
}
GPT2 = {
    "1 product": {"format": "kronecker", "first_shape": [768, 768], "factors": 1},
    "4 products": {"format": "kronecker", "first_shape": [1024, 256], "factors": 4},
    **OTHERS,
}
SMOLLM2 = {
    "1 product": {"format": "kronecker", "first_shape": [768, 576], "factors": 1},
    "4 products": {"format": "kronecker", "first_shape": [512, 192], "factors": 4},
    **OTHERS,
}
MODELS = {"GPT-2": ((768, 3072), GPT2), "SmolLM2": ((576, 1536), SMOLLM2)}
"""The sizes (in, out) of the first feed-forward linear, and the networks by name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write the record if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.factorized",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help=f"of many tokens; of few, {ROUNDS_OF_FEW} times as many")
    parser.add_argument("--threads", type=int, help="threads of torch; chosen by torch by default")
    parser.add_argument("--write", action="store_true", help="write the record")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a record for each number of threads")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    settings = [(*case, *step) for case in cases() for step in STEPS]
    rows = [measured(*setting, options.rounds) for setting in tqdm(settings, desc="steps", leave=False)]
    print(tables(rows))
    if options.write:
        machine = {**describe_machine(CPU), "rounds": options.rounds}
        write(options.results, f"threads {torch.get_num_threads()}", {"machine": machine, "rows": rows})
    return 0


def write(path: Path, name: str, record: dict[str, Any]) -> None:
    """Add a record to the file, or replace the one of that name; a line for each row."""
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    texts = []
    for key, found in {**records, name: record}.items():
        lines = ",\n".join(map(json.dumps, found["rows"]))
        texts.append(f'"{key}": {{"machine": {json.dumps(found["machine"])}, "rows": [\n{lines}\n]}}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(texts) + "\n}\n", encoding="utf-8")


def cases(dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, str, FactorizedLinear]]:
    """Yield the layer, the name of the network and the network, with random values, of each case."""
    for model, (sizes, networks) in MODELS.items():
        for (N, M), (name, config) in product((sizes, sizes[::-1]), networks.items()):
            linear = nn.Linear(N, M, bias=False, device="meta")
            spec = network_spec(FactorizedConfig.from_dict(config), model, [linear], transposed=sizes != (N, M))
            network = factorized_like(linear, spec)
            shapes = spec.core_shapes
            network.set_network([torch.randn(shape, dtype=dtype) / (shape[0] * shape[2]) ** 0.5 for shape in shapes])
            yield f"{N} -> {M}", name, network


def measured(layer: str, name: str, network: FactorizedLinear, step: str, tokens: int, rounds: int) -> dict[str, Any]:
    """Return the record of one step of one layer: times, ratios, counts and memory of all contenders."""
    training, few = step == "training", tokens <= FEW
    problem = Problem.make(tokens, Sizes.of(network.live_cores()), network.cores[0].dtype, "cpu", None)
    modules, plans, chosen = contenders(name, network), fixed_plans(problem, training), fastest(problem)
    if not few:
        modules |= {f"plan {plan}": with_plan(network, plan) for plan in plans}
    layers = LAYERS_OF_FEW if few else 1
    runs = {key: run_of(module, problem, training, layers) for key, module in modules.items()}
    seconds = seconds_of_rounds(runs, rounds * (ROUNDS_OF_FEW if few else 1), CPU)
    own = seconds["network"]
    ratios = {key: [a / b for a, b in zip(own, times, strict=True)] for key, times in seconds.items()}
    works = {
        key: contender_work(key, network, problem, chosen, training) for key in modules if not key.startswith("plan ")
    } | {f"plan {key}": plan_work(plan, problem, training) for key, plan in plans.items()}
    itemsize = problem.dtype.itemsize
    return {
        "layer": layer,
        "network": name,
        "shape": str(network.spec),
        "step": step,
        "tokens": tokens,
        "plan": str(chosen if training else chosen.product),
        "milliseconds": {key: round(1e3 * statistics.median(times) / layers, 4) for key, times in seconds.items()},
        "ratios": {key: [round(value, 4) for value in Timing.of(values)[:3]] for key, values in ratios.items()},
        "weights": {key: sum(p.nbytes for p in module.parameters()) for key, module in modules.items()},
        "peak": {key: peak(run) for key, run in runs.items() if training and not key.startswith("plan ")},
        "flops": {key: work.flops for key, work in works.items()},
        "moved": {key: work.moved * itemsize for key, work in works.items()},
    }


def run_of(module: nn.Module, problem: Problem, training: bool, layers: int) -> Callable[[], object]:
    """Return a function that runs one training step, or the forward passes of so many equal layers."""
    M, N = problem.sizes.shape
    x = torch.randn(problem.tokens, N, dtype=problem.dtype, requires_grad=training)
    if training:
        g, parameters = torch.randn(problem.tokens, M, dtype=problem.dtype), list(module.parameters())
        return lambda: torch.autograd.grad(module(x), [x, *parameters], g)
    modules = [module, *(copy.deepcopy(module) for _ in range(layers - 1))]

    @torch.no_grad()
    def forward() -> None:
        for each in modules:
            each(x)

    return forward


def peak(run: Callable[[], None]) -> int:
    """Return the most bytes that the tensors of a call take at a time, by the requests that torch records."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    in_use, highest = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        highest = max(highest, in_use)
    return highest


if __name__ == "__main__":
    sys.exit(main())
