"""The strategies for one product and their costs, as a printable table."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .chains import Sizes
from .device import coefficients
from .network import Network
from .planner import Problem, estimates, fastest, timings
from .plans import Plan
from .strategy import Strategy, Wanted
from .work import Work


class StrategyCost(NamedTuple):
    """One strategy for one contraction: operations, bytes read and written, kernels, estimated and measured seconds."""

    strategy: str
    flops: int
    bytes: int
    launches: int
    seconds: float
    measured: float | None = None


class Explanation(NamedTuple):
    """The costs of each contraction by each strategy, the fastest first, and the plan of "auto"; print it.

    If the gradient of x and those of the cores use one strategy, shared intermediate results are computed once, so that
    neither of them need be the fastest on its own.
    """

    product: tuple[StrategyCost, ...]
    input_gradient: tuple[StrategyCost, ...]
    core_gradients: tuple[StrategyCost, ...]
    plan: Plan
    title: str

    def __str__(self) -> str:
        lines = [self.title, f"auto: {self.plan}"]
        for name, costs, chosen in zip(
            ("product", "gradient of x", "gradients of the cores"), self[:3], self.plan.strategies, strict=True
        ):
            lines += [
                "",
                f"{name:<24}{'MFLOP':>12}{'MB moved':>12}{'kernels':>9}{'estimated ms':>14}{'measured ms':>13}",
            ]
            for cost in costs:
                measured = "" if cost.measured is None else f"{cost.measured * 1e3:,.3f}"
                lines.append(
                    f"{cost.strategy:<24}{cost.flops / 1e6:>12,.1f}{cost.bytes / 1e6:>12,.1f}{cost.launches:>9}"
                    f"{cost.seconds * 1e3:>14,.3f}{measured:>13}{'  <- auto' if cost.strategy == str(chosen) else ''}"
                )
        return "\n".join(lines)


def explain(
    x_shape: Sequence[int],
    tt: Network,
    frozen_weight: bool = False,
    measure: bool = False,
    dtype: torch.dtype | None = None,
) -> Explanation:
    """Return the strategies for an x of shape `x_shape` on the network's device; `print(explain(...))` is a table.

    The plan is that of "auto", which rounds the number of vectors down (see `planner.fastest`): if two strategies cost
    nearly the same, it may not be the first of the table.

    Args:
        x_shape: (..., N).
        tt: the network, (M, N).
        frozen_weight: whether the network is a delta beside a frozen weight, whose product is then included.
        dtype: of x and the weight, e.g. bfloat16 with float32 cores; by default that of the network. Without a weight
            the product is computed in the wider dtype of x and the cores, as by `matmul`.
        measure: whether to run and time each strategy too, on random tensors; not supported on the meta device.

    Raises:
        ValueError: x_shape does not end with N, or a network on the meta device or an empty batch is to be measured.
    """
    N = tt.shape[1]
    if not isinstance(x_shape, Sequence) or len(x_shape) == 0 or x_shape[-1] != N:
        raise ValueError(f"x_shape must end with {N}; got {x_shape}: pass (..., {N}).")
    if measure and tt.device.type == "meta":
        raise ValueError(
            "A network to be timed must hold data; got one on the meta device: build it on another device."
        )
    tokens = math.prod(x_shape[:-1])
    if measure and tokens == 0:
        raise ValueError(f"A product is timed with at least one vector; got x_shape = {tuple(x_shape)}: pass more.")
    dtype = dtype or tt.dtype
    if not frozen_weight:
        dtype = torch.promote_types(dtype, tt.dtype)
    problem = Problem.make(tokens, Sizes.of(tt.cores), dtype, tt.device.type, dtype if frozen_weight else None)
    clock = timings(problem, tt.device) if measure else None
    estimated = estimates(problem, coefficients(tt.device.type, dtype))
    given = tokens, problem.sizes, frozen_weight
    works = {
        "product": lambda strategy: strategy.product_work(*given),
        "input_gradient": lambda strategy: strategy.gradient_work(*given, Wanted.INPUT),
        "core_gradients": lambda strategy: strategy.gradient_work(*given, Wanted.CORES),
    }
    tables = {}
    for name, work_of in works.items():
        measured = {} if clock is None else getattr(clock, name)
        costs = [
            _cost(strategy, work_of(strategy), dtype.itemsize, seconds, measured.get(strategy))
            for strategy, seconds in getattr(estimated, name).items()
        ]
        tables[name] = tuple(sorted(costs, key=lambda cost: cost.seconds))
    M, beside = tt.shape[0], " and a frozen weight" if frozen_weight else ""
    title = f"{tokens:,} vectors, {N} -> {M}{beside}, {str(dtype).removeprefix('torch.')} on {tt.device.type}"
    return Explanation(**tables, plan=fastest(problem), title=title)


def _cost(strategy: Strategy, work: Work, itemsize: int, seconds: float, measured: float | None) -> StrategyCost:
    launches = work.launches + len(work.products)
    return StrategyCost(str(strategy), work.flops, work.moved * itemsize, launches, seconds, measured)
