"""The ways for one product with what they cost, as a printable table."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from .chains import Sizes
from .device import coefficients
from .planner import Problem, estimates, fastest, timings
from .plans import Plan
from .strategy import Strategy
from .work import Work

if TYPE_CHECKING:
    from ..tensor_network import TensorNetwork


class StrategyCost(NamedTuple):
    """One way: its operations, bytes read and written, kernels, and seconds, of the product and of all gradients."""

    way: str
    flops: int
    bytes: int
    launches: int
    seconds: float
    measured: float | None = None


class Explanation(NamedTuple):
    """The costs of each contraction by each way, the fastest first, and the plan that "auto" takes; print it.

    Where the gradient of x and those of the cores take one way it makes what they share once, so that neither need be
    the fastest alone.
    """

    product: tuple[StrategyCost, ...]
    input_gradient: tuple[StrategyCost, ...]
    core_gradients: tuple[StrategyCost, ...]
    plan: Plan
    title: str

    def __str__(self) -> str:
        lines = [self.title, f"auto: {self.plan}"]
        for name, costs, chosen in zip(
            ("product", "gradient of x", "gradients of the cores"), self[:3], self.plan.ways, strict=True
        ):
            lines += [
                "",
                f"{name:<24}{'MFLOP':>12}{'MB moved':>12}{'kernels':>9}{'estimated ms':>14}{'measured ms':>13}",
            ]
            for cost in costs:
                measured = "" if cost.measured is None else f"{cost.measured * 1e3:,.3f}"
                lines.append(
                    f"{cost.way:<24}{cost.flops / 1e6:>12,.1f}{cost.bytes / 1e6:>12,.1f}{cost.launches:>9}"
                    f"{cost.seconds * 1e3:>14,.3f}{measured:>13}{'  <- auto' if cost.way == str(chosen) else ''}"
                )
        return "\n".join(lines)


def explain(
    x_shape: Sequence[int],
    tt: "TensorNetwork",
    frozen_weight: bool = False,
    measure: bool = False,
    dtype: torch.dtype | None = None,
) -> Explanation:
    """The ways for an x of shape `x_shape` on the network's device; `print(explain(...))` is a table.

    The plan is that of "auto", which rounds the number of vectors down, see `planner.fastest`: where two ways cost
    nearly the same it may not be the first of the table.

    Args:
        frozen_weight: whether the network changes a frozen weight, whose product is counted then.
        dtype: of x and the weight, e.g. bfloat16 with cores in float32; that of the network where it is None. Without
            a weight the product is computed in the wider dtype of x and the cores, as by `matmul`.
        measure: whether each way is run and timed too, on random numbers; not on the meta device.

    Raises:
        ValueError: x_shape does not end with the network's columns, or a network on the meta device is to be measured.
    """
    N = tt.shape[1]
    if not isinstance(x_shape, Sequence) or len(x_shape) == 0 or x_shape[-1] != N:
        raise ValueError(f"x_shape must end with {N}, but {x_shape} was given; pass (..., {N}).")
    if measure and tt.device.type == "meta":
        raise ValueError("A network is timed where its numbers are, but it is on the meta device; build it on another.")
    tokens = math.prod(x_shape[:-1])
    if measure and tokens == 0:
        raise ValueError(f"A product is timed with at least one vector, but x_shape is {tuple(x_shape)}; pass more.")
    dtype = dtype or tt.dtype
    if not frozen_weight:
        dtype = torch.promote_types(dtype, tt.dtype)
    problem = Problem.make(tokens, Sizes.of(tt.cores), dtype, tt.device.type, dtype if frozen_weight else None)
    clock = timings(problem, tt.device) if measure else None
    works = {
        "product": lambda way: way.product_work(tokens, problem.sizes, frozen_weight),
        "input_gradient": lambda way: way.gradient_work(tokens, problem.sizes, frozen_weight, True, False),
        "core_gradients": lambda way: way.gradient_work(tokens, problem.sizes, frozen_weight, False, True),
    }
    estimated = estimates(problem, coefficients(tt.device.type, dtype))
    tables = {}
    for name, work_of in works.items():
        measured = {} if clock is None else getattr(clock, name)
        costs = [
            _cost(way, work_of(way), dtype.itemsize, seconds, measured.get(way))
            for way, seconds in getattr(estimated, name).items()
        ]
        tables[name] = tuple(sorted(costs, key=lambda cost: cost.seconds))
    M, beside = tt.shape[0], " and a frozen weight" if frozen_weight else ""
    title = f"{tokens:,} vectors, {N} -> {M}{beside}, {str(dtype).removeprefix('torch.')} on {tt.device.type}"
    return Explanation(**tables, plan=fastest(problem), title=title)


def _cost(way: Strategy, work: Work, itemsize: int, seconds: float, measured: float | None) -> StrategyCost:
    launches = work.launches + len(work.products)
    return StrategyCost(str(way), work.flops, work.moved * itemsize, launches, seconds, measured)
