"""How a plan is chosen: by name, by the cost model of the device, or by timing the ways once.

    "auto"     the fastest by `Device.seconds`; depends on sizes, dtype and the device's coefficients, so that a resumed
               run takes it too, unless the machine was calibrated in between
    "timed"    the fastest by the clock, measured once for these sizes (tokens rounded up to a power of two) and kept
               while the process lives: another process may choose another one

The gradient of x and those of the cores are chosen together: where both take one way, it makes what they share once.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .chains import Sizes
from .clock import shortest
from .device import coefficients
from .plans import Plan, ways
from .strategy import Strategy
from .work import Device

ROUNDS = 5
"""How often a way is timed; the fastest time counts."""

ROOM = 4
"""A way whose largest intermediate has over so many times the numbers of x, y and W is left out."""


class Problem(NamedTuple):
    """What a plan is chosen for: so many vectors, the sizes of the cores, and what is frozen beside them."""

    tokens: int
    sizes: Sizes
    dtype: torch.dtype
    device_type: str
    has_weight: bool
    fusable: bool

    @classmethod
    def of(cls, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None) -> "Problem":
        """That of x (T, N), these cores and a frozen weight or none."""
        weight_dtype = None if weight is None else weight.dtype
        return cls.make(x.shape[0], Sizes.of(cores), x.dtype, x.device.type, weight_dtype)

    @classmethod
    def make(
        cls, tokens: int, sizes: Sizes, dtype: torch.dtype, device_type: str, weight_dtype: torch.dtype | None
    ) -> "Problem":
        """A weight in 16 bits is not fused: what is far smaller than the weight would be rounded away."""
        fusable = weight_dtype is not None and min(dtype.itemsize, weight_dtype.itemsize) >= 4
        return cls(tokens, sizes, dtype, device_type, weight_dtype is not None, fusable)

    def ways_for(self, *gradients: bool) -> list[Strategy]:
        """The ways for the product, or for the gradients (of x, of the cores), that there is room for.

        Where there is for none, as in a ring of ranks far larger than its factors, it is the one that needs least.
        """
        given = self.tokens, self.sizes, self.has_weight
        M, N = self.sizes.shape
        room = ROOM * (self.tokens * (M + N) + M * N)

        def largest(way: Strategy) -> int:
            return (way.gradient_work(*given, *gradients) if gradients else way.product_work(*given)).largest

        of_cores = ways(self.sizes, fusable=False)
        listed = of_cores if gradients == (False, True) else ways(self.sizes, self.fusable)
        if gradients == (True, True):
            listed = [way for way in listed if way in of_cores]
        return [way for way in listed if largest(way) <= room] or [min(listed, key=largest)]


def resolve(plan: str, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None) -> Plan:
    """The plan that `plan` stands for with this input; without any vectors there is nothing to choose."""
    if x.shape[0] == 0:
        return Plan.parse("materialised", len(cores))
    if plan == "auto" or (plan == "timed" and x.is_meta):
        return fastest(Problem.of(x, cores, weight))
    if plan == "timed":
        problem = Problem.of(x, cores, weight)
        return timed(problem._replace(tokens=1 << (max(problem.tokens, 1) - 1).bit_length()), x.device)
    return Plan.parse(plan, len(cores))


class Seconds(NamedTuple):
    """Of each way: the product, the gradient of x, those of the cores, and both gradients together."""

    product: dict[Strategy, float]
    input_gradient: dict[Strategy, float]
    core_gradients: dict[Strategy, float]
    both: dict[Strategy, float]

    def plan(self) -> Plan:
        """The fastest one."""
        pairs = {(a, b): s + t for a, s in self.input_gradient.items() for b, t in self.core_gradients.items()}
        pairs |= {(way, way): seconds for way, seconds in self.both.items()}
        return Plan(min(self.product, key=self.product.get), *min(pairs, key=pairs.get))


def fastest(problem: Problem) -> Plan:
    """The plan that the cost model of the device expects to be fastest.

    The number of vectors is rounded down to its three leading bits, by less than a fifth, so that batches of changing
    length share few plans.
    """
    low = max(problem.tokens.bit_length() - 3, 0)
    rounded = problem._replace(tokens=problem.tokens >> low << low)
    return _fastest(rounded, coefficients(problem.device_type, problem.dtype))


@lru_cache(maxsize=4096)
def _fastest(problem: Problem, device: Device) -> Plan:
    return estimates(problem, device).plan()


def estimates(problem: Problem, device: Device) -> Seconds:
    """By the cost model."""
    tokens, sizes, dtype, _, has_weight, _ = problem
    return _each_way(
        problem,
        lambda way: device.seconds(way.product_work(tokens, sizes, has_weight), dtype.itemsize),
        lambda way, *wanted: device.seconds(way.gradient_work(tokens, sizes, has_weight, *wanted), dtype.itemsize),
    )


@lru_cache(maxsize=256)
def timed(problem: Problem, device: torch.device) -> Plan:
    """The plan that the clock finds fastest, on random numbers of these sizes."""
    return timings(problem, device).plan()


def timings(problem: Problem, device: torch.device) -> Seconds:
    """By the clock, on random numbers of a generator of their own."""
    tokens, sizes, dtype, _, has_weight, _ = problem
    M, N = sizes.shape
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    x, g, weight = draw(tokens, N), draw(tokens, M), draw(M, N) if has_weight else None
    wide = torch.promote_types(dtype, torch.float32)
    shapes = zip(sizes.ranks[:-1], sizes.rows, sizes.columns, sizes.ranks[1:], strict=True)
    cores = [draw(*shape, dtype=wide) for shape in shapes]
    with torch.no_grad():
        return _each_way(
            problem,
            lambda way: shortest(lambda: way.product(x, cores, weight, None), device, ROUNDS),
            lambda way, *wanted: shortest(lambda: way.gradients(x, g, cores, weight, *wanted), device, ROUNDS),
        )


def _each_way(
    problem: Problem, product: Callable[[Strategy], float], gradients: Callable[[Strategy, bool, bool], float]
) -> Seconds:
    return Seconds(
        {way: product(way) for way in problem.ways_for()},
        {way: gradients(way, True, False) for way in problem.ways_for(True, False)},
        {way: gradients(way, False, True) for way in problem.ways_for(False, True)},
        {way: gradients(way, True, True) for way in problem.ways_for(True, True)},
    )
