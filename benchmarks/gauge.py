"""Measure the influence of the gauge of a train on training: conditioning, and the loss after some steps.

    python -m benchmarks.gauge                                  a few minutes
    python -m benchmarks.gauge --out docs/adaptive_ranks        updates docs/adaptive_ranks

W (out, in) with cores G_k is fitted to a fixed matrix T, f = || W - T ||^2 / || T ||^2. T is a train of larger ranks
with decaying singular values and the initial norm of W without a zero core. J = dW/dG (out in, parameters); J^T J is
the Gauss-Newton matrix up to a factor. Its null space consists of gauge directions and of cores that do not act yet;
the condition number is that of the complement, and does not depend on the complement's dimension.

    gauge     plain         the cores as initialised
              start         orthogonalised around the last core before the first step
              every n       and again every n steps, with the optimizer state transformed accordingly

For each optimizer and gauge, the learning rate of the grid with the best median over the seeds is used; inf is a seed
that diverged at it, null in the file.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.adaptive_ranks.optimizer_state import transform_state
from adapters.tables import render_table
from benchmarks.machine import describe_machine
from t3nsor.gauge import orthogonal_gauge

RAW_SHAPE = ((4, 4, 2), (2, 4, 4))
RANK = 4
TARGET_RANK = 8
EVERY = 20
DIVERGED = 1e3
GAUGES = ("plain", "start", f"every {EVERY}")
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], tuple[float, ...]]] = {
    "Adam": (torch.optim.Adam, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)),
    "SGD": (torch.optim.SGD, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)),
    "SGD, momentum 0.9": (
        lambda cores, lr: torch.optim.SGD(cores, lr, momentum=0.9),
        (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write gauge.json and gauge.md."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gauge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    options = parser.parse_args(arguments)
    seeds = range(options.seeds)
    record = {
        "machine": describe_machine(torch.device("cpu")),
        "raw_shape": RAW_SHAPE,
        "rank": RANK,
        "seeds": options.seeds,
        "steps": options.steps,
        "conditioning": [measure_conditioning(seed, options.steps) for seed in seeds],
        "fits": {
            f"{start}, {name}, {gauge}": measure_fit(start == "zero core", name, gauge, seeds, options.steps)
            for start in ("zero core", "no zero core")
            for name in OPTIMIZERS
            for gauge in GAUGES
        },
    }
    tables = f"{conditioning_table(record)}\n\n{fit_table(record)}"
    print(tables)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gauge.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (options.out / "gauge.md").write_text(f"```\n{tables}\n```\n", encoding="utf-8")
    return 0


def target(seed: int) -> Tensor:
    """Return T, whose singular values at the middle bonds halve from one to the next."""
    train = random_train(1000 + seed, TARGET_RANK)
    cores = list(train.orthogonalize().cores)
    for k in range(len(cores) - 1):
        falling = 0.5 ** torch.arange(cores[k].shape[3], dtype=torch.float64)
        cores[k] = cores[k] * falling  # (r, m, n, s) x (s,)
    full = t3.TensorTrain(cores).full()
    return full * (full.shape[0] ** 0.5 / torch.linalg.matrix_norm(full))  # Glorot: E || W ||^2 = 2 M N / (M + N)


def random_train(seed: int, rank: int) -> t3.TensorTrain:
    """Return a random train with Glorot's variance."""
    torch.manual_seed(seed)
    return t3.glorot_initializer(RAW_SHAPE, rank, dtype=torch.float64)


def start(seed: int, zero: bool, gauge: str) -> list[nn.Parameter]:
    """Return cores with Glorot's variance in a gauge, with the last one zero if `zero`."""
    cores = [core.clone() for core in random_train(seed, RANK).cores]
    if zero:
        cores[-1].zero_()
    if gauge != "plain":
        cores = orthogonal_gauge(cores).cores(cores)
    return [nn.Parameter(core) for core in cores]


def fit(
    cores: list[nn.Parameter],
    wanted: Tensor,
    make: Callable[..., torch.optim.Optimizer],
    lr: float,
    gauge: str,
    steps: int,
) -> float:
    """Train the cores in place and return the final loss."""
    optimizer = make(cores, lr)
    for step in range(steps):
        if gauge.startswith("every") and step and step % EVERY == 0:
            orthogonalize(cores, optimizer)
        loss = loss_of(cores, wanted)
        if not loss < DIVERGED:
            return float("inf")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss_of(cores, wanted).detach())


def loss_of(cores: Sequence[Tensor], wanted: Tensor) -> Tensor:
    """Return f, which is 1 for W = 0."""
    return (t3.TensorTrain(cores).full() - wanted).square().sum() / wanted.square().sum()


@torch.no_grad()
def orthogonalize(cores: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer | None = None) -> None:
    """Orthogonalise around the last core in place, and transform the optimizer state."""
    gauge = orthogonal_gauge(cores)
    for k, (core, new) in enumerate(zip(cores, gauge.cores(cores), strict=True)):
        core.copy_(new)
        if optimizer is not None and core in optimizer.state:
            optimizer.state[core] = transform_state(optimizer.state[core], k, gauge)


def measure_fit(zero: bool, name: str, gauge: str, seeds: Sequence[int], steps: int) -> dict[str, Any]:
    """Return the losses of all seeds at each learning rate, and the rate with the best median."""
    make, grid = OPTIMIZERS[name]
    losses = {
        lr: [fit(start(seed, zero, gauge), target(seed), make, lr, gauge, steps) for seed in seeds] for lr in grid
    }
    best = min(losses, key=lambda lr: statistics.median(losses[lr]))
    all_losses = {str(lr): [value if value < DIVERGED else None for value in values] for lr, values in losses.items()}
    return {"best_learning_rate": best, "losses": all_losses[str(best)], "all": all_losses}


def measure_conditioning(seed: int, steps: int) -> dict[str, dict[str, float]]:
    """Return the condition number and the rank of J^T J for each state of the cores of one seed."""
    found = {}
    for label, zero in (("no zero core", False), ("zero core", True)):
        for gauge, name in (("plain", "Glorot"), ("start", "orthogonal")):
            found[f"start, {label}, {name}"] = conditioning(start(seed, zero, gauge))
    for label, zero in (("no zero core", False), ("zero core", True)):
        cores = start(seed, zero, "plain")
        fit(cores, target(seed), torch.optim.Adam, 0.03, "plain", steps)
        found[f"after {steps} steps of Adam, {label}"] = conditioning(cores)
        orthogonalize(cores)
        found[f"the same, orthogonalised, {label}"] = conditioning(cores)
    return found


def conditioning(cores: Sequence[Tensor]) -> dict[str, float]:
    """Return the squared ratio of the largest to the smallest nonzero singular value of J, and their number."""
    leaves = tuple(core.detach() for core in cores)
    jacobians = torch.func.jacrev(
        lambda *given: t3.TensorTrain(given).full().flatten(), argnums=tuple(range(len(leaves)))
    )(*leaves)
    values = torch.linalg.svdvals(torch.cat([part.flatten(1) for part in jacobians], dim=1))  # (out in, parameters)
    values = values[values > 1e-9 * values[0]]
    return {"condition": float((values[0] / values[-1]) ** 2), "rank": len(values)}


def conditioning_table(record: dict[str, Any]) -> str:
    rows = []
    for state in record["conditioning"][0]:
        values = [seed[state]["condition"] for seed in record["conditioning"]]
        ranks = sorted({seed[state]["rank"] for seed in record["conditioning"]})
        cells = [statistics.median(values), min(values), max(values)]
        rows.append([state, *(f"{value:.3g}" for value in cells), ", ".join(map(str, ranks))])
    header = ["cores", "median", "least", "largest", "rank of J"]
    return render_table(f"Condition number of J^T J, {record['seeds']} seeds", header, rows)


def fit_table(record: dict[str, Any]) -> str:
    rows = []
    for name, result in record["fits"].items():
        values = [float("inf") if value is None else value for value in result["losses"]]
        cells = [statistics.median(values), min(values), max(values)]
        rows.append([name, f"{result['best_learning_rate']:g}", *(f"{value:.3g}" for value in cells)])
    title = f"|| W - T ||^2 / || T ||^2 after {record['steps']} steps, {record['seeds']} seeds"
    return render_table(title, ["fit", "learning rate", "median", "least", "largest"], rows)


if __name__ == "__main__":
    sys.exit(main())
