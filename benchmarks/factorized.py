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
the ratios within each round. Peak memory is the most that the tensors made by one step take at a time, without weights
and input. The bars are in `benchmarks.factorized_tables`.
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
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from adapters.factorized.configuration import FactorizedConfig
from adapters.factorized.layers import FactorizedLinear, factorized_like, rank_within
from adapters.factorized.shapes import network_spec
from benchmarks.factorized_tables import FEW, tables
from benchmarks.machine import describe_machine
from benchmarks.timing import Timing, seconds_of_rounds
from t3nsor.contraction.chains import Sizes
from t3nsor.contraction.planner import Problem, fastest
from t3nsor.contraction.plans import Plan
from t3nsor.contraction.strategy import Wanted
from t3nsor.contraction.work import Product, Work

CPU = torch.device("cpu")
RESULTS = Path("docs/results/kronecker/speed.json")
STEPS = (("forward", 1), ("forward", 8), ("forward", 64), ("forward", 1024), ("forward", 4096), ("training", 1024))
LAYERS_OF_FEW = 4
ROUNDS_OF_FEW = 5
"""The multiple of the rounds of many tokens that few tokens have."""
NOT_THE_BEST = 1.5
"""A factor-wise plan with more than this multiple of the fewest operations is not timed."""
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
    rows = [measured(*case, *step, options.rounds) for case in cases() for step in STEPS]
    print(tables(rows))
    if options.write:
        records = json.loads(options.results.read_text(encoding="utf-8")) if options.results.exists() else {}
        records[f"threads {torch.get_num_threads()}"] = {
            "machine": describe_machine(CPU),
            "rounds": options.rounds,
            "rows": rows,
        }
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0


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


class Products(nn.Module):
    """y = x W^T with W = sum_i A_i (x) B_i, of which each product is built at every call; A (r, m1, n1), B likewise."""

    def __init__(self, A: Tensor, B: Tensor) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(A.detach().clone()), nn.Parameter(B.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        (r, m1, n1), (_, m2, n2) = self.A.shape, self.B.shape
        products = [self.A[i, :, None, :, None] * self.B[i, :, None] for i in range(r)]  # r times (m1, m2, n1, n2)
        return F.linear(x, sum(products).reshape(m1 * m2, n1 * n2))  # (T, N) x (N, M) -> (T, M)


def contenders(name: str, network: FactorizedLinear) -> dict[str, nn.Module]:
    """The network and what it is compared with, of equal values where these can represent it."""
    M, N = network.out_features, network.in_features
    found = {"network": network, "dense": network.plain()}
    A, B = network.live_cores()[0], network.live_cores()[-1]  # (1, m1, n1, r) and (r, m2, n2, 1) if there are two
    if "product" in name:
        found["products"] = Products(A[0].permute(2, 0, 1), B[..., 0])
    rank = rank_within("tensor_train", ((1, M), (N, 1)), network.spec.parameters)
    low_rank = nn.Sequential(nn.Linear(N, rank, bias=False), nn.Linear(rank, M, bias=False)).to(A.dtype)
    if name == "low rank":
        low_rank[0].weight = nn.Parameter(A[0, 0].detach().T.contiguous())  # (N, r) -> (r, N)
        low_rank[1].weight = nn.Parameter(B[:, :, 0, 0].detach().T.contiguous())  # (r, M) -> (M, r)
    return {**found, "low rank": low_rank}


def fixed_plans(problem: Problem, training: bool) -> dict[str, Plan]:
    """The plans that may be the best one: the dense matrix, and the factor-wise ones of the fewest operations."""
    common = set(problem.strategies()) & set(problem.strategies(Wanted.BOTH))
    plans = {str(strategy): Plan(strategy, strategy, strategy) for strategy in common}
    flops = {name: plan_work(plan, problem, training).flops for name, plan in plans.items()}
    most = NOT_THE_BEST * min(flops.values())
    return {name: plan for name, plan in sorted(plans.items()) if flops[name] <= most or name == "materialised"}


def with_plan(network: FactorizedLinear, plan: str) -> FactorizedLinear:
    """A copy of the network that always uses one plan."""
    fixed = copy.deepcopy(network)
    fixed.plan = plan
    return fixed


def measured(layer: str, name: str, network: FactorizedLinear, step: str, tokens: int, rounds: int) -> dict[str, Any]:
    """Return the record of one step of one layer: times, ratios, counts and memory of all contenders."""
    training, few = step == "training", tokens <= FEW
    problem = Problem.make(tokens, Sizes.of(network.live_cores()), network.cores[0].dtype, "cpu", None)
    modules, plans, chosen = contenders(name, network), fixed_plans(problem, training), fastest(problem)
    if not few:
        modules |= {f"plan {plan}": with_plan(network, plan) for plan in plans}
    layers = LAYERS_OF_FEW if few else 1
    runs = {key: run_of(module, network.in_features, tokens, training, layers) for key, module in modules.items()}
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
        "milliseconds": {key: 1e3 * statistics.median(times) / layers for key, times in seconds.items()},
        "ratios": {key: list(Timing.of(values)[:3]) for key, values in ratios.items()},
        "weights": {key: sum(p.nbytes for p in module.parameters()) for key, module in modules.items()},
        "peak": {key: peak(run_of(module, network.in_features, tokens, training)) for key, module in modules.items()},
        "flops": {key: work.flops for key, work in works.items()},
        "moved": {key: work.moved * itemsize for key, work in works.items()},
    }


def run_of(module: nn.Module, N: int, tokens: int, training: bool, layers: int = 1) -> Callable[[], None]:
    """Return a function that runs one step of so many equal layers, one after another."""
    modules = [module, *(copy.deepcopy(module) for _ in range(layers - 1))]
    parameters = list(module.parameters())
    x = torch.randn(tokens, N, dtype=parameters[0].dtype, requires_grad=training)
    with torch.no_grad():
        g = torch.randn_like(module(x))

    def forward() -> None:
        with torch.no_grad():
            for each in modules:
                each(x)

    return (lambda: torch.autograd.grad(module(x), [x, *parameters], g)) if training else forward


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


def plan_work(plan: Plan, problem: Problem, training: bool) -> Work:
    """Return the work of a step with a plan."""
    given = problem.tokens, problem.sizes, False
    work = plan.product.product_work(*given)
    if not training:
        return work
    if plan.input_gradient == plan.core_gradients:
        return work + plan.input_gradient.gradient_work(*given, Wanted.BOTH)
    work += plan.input_gradient.gradient_work(*given, Wanted.INPUT)
    return work + plan.core_gradients.gradient_work(*given, Wanted.CORES)


def contender_work(key: str, network: FactorizedLinear, problem: Problem, chosen: Plan, training: bool) -> Work:
    """Return the work of a step of a contender without a fixed plan."""
    M, N = problem.sizes.shape

    def linear(n: int, m: int) -> Work:
        T = problem.tokens
        products = Product(T, n, m), *((Product(T, m, n), Product(m, T, n)) if training else ())
        return Work(products)

    if key == "network":
        return plan_work(chosen, problem, training)
    if key == "low rank":
        rank = rank_within("tensor_train", ((1, M), (N, 1)), network.spec.parameters)
        return linear(N, rank) + linear(rank, M)
    built = 2 * network.ranks[1] if key == "products" else 0  # each product is written, and added to the others
    return linear(N, M) + Work(copies=(M * N,) * built * (2 if training else 1))


if __name__ == "__main__":
    sys.exit(main())
