"""The choice of a plan: by name, by the cost model of the device, or by timing the strategies once.

    "auto"     the fastest by `Device.seconds`; depends only on sizes, dtype and the device's coefficients, so that a
               resumed run uses the same plan, unless the machine was calibrated in between
    "timed"    the fastest by the clock, measured once for these sizes (tokens rounded up to a power of two) and cached
               for the lifetime of the process; another process may choose differently

The strategies for the gradient of x and for those of the cores are chosen together: if they are the same, intermediate
results that both need are computed once.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .chains import Sizes
from .clock import shortest
from .device import coefficients
from .plans import Plan, candidates
from .strategy import Strategy, Wanted
from .work import Device

ROUNDS = 5
"""The number of timed runs of each strategy; the fastest one counts."""

LARGEST_INTERMEDIATE = 4
"""A strategy is excluded if its largest intermediate has more than this multiple of the entries of x, y and W."""


class Problem(NamedTuple):
    """What a plan is chosen for: the number of vectors, the sizes of the cores, and the frozen weight."""

    tokens: int
    sizes: Sizes
    dtype: torch.dtype
    device_type: str
    has_weight: bool
    fusable: bool

    @classmethod
    def of(cls, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None) -> "Problem":
        """Return the problem of x (T, N), these cores, and a frozen weight or None."""
        weight_dtype = None if weight is None else weight.dtype
        return cls.make(x.shape[0], Sizes.of(cores), x.dtype, x.device.type, weight_dtype)

    @classmethod
    def make(
        cls, tokens: int, sizes: Sizes, dtype: torch.dtype, device_type: str, weight_dtype: torch.dtype | None
    ) -> "Problem":
        """Return the problem; a 16-bit weight is not fusable, since a much smaller delta would be rounded away."""
        fusable = weight_dtype is not None and min(dtype.itemsize, weight_dtype.itemsize) >= 4
        return cls(tokens, sizes, dtype, device_type, weight_dtype is not None, fusable)

    def strategies(self, wanted: Wanted | None = None) -> list[Strategy]:
        """Return the candidates for the product (None) or for these gradients that do not need too much memory.

        If all of them do, as in a ring whose ranks are far larger than its factors, it is the one that needs the least.
        """
        given = self.tokens, self.sizes, self.has_weight
        M, N = self.sizes.shape
        limit = LARGEST_INTERMEDIATE * (self.tokens * (M + N) + M * N)

        def largest(strategy: Strategy) -> int:
            return (strategy.product_work(*given) if wanted is None else strategy.gradient_work(*given, wanted)).largest

        for_cores = candidates(self.sizes, fusable=False)
        found = for_cores if wanted is Wanted.CORES else candidates(self.sizes, self.fusable)
        if wanted is Wanted.BOTH:
            found = [strategy for strategy in found if strategy in for_cores]
        return [strategy for strategy in found if largest(strategy) <= limit] or [min(found, key=largest)]


def resolve(plan: str, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None) -> Plan:
    """Return the plan that the text `plan` means for this input; an empty batch always uses "materialised"."""
    if x.shape[0] == 0:
        return Plan.parse("materialised", len(cores))
    if plan == "auto" or (plan == "timed" and x.is_meta):
        shapes, weight_dtype = tuple(core.shape for core in cores), None if weight is None else weight.dtype
        device = coefficients(x.device.type, x.dtype)
        return _fastest_of_shapes(x.shape[0], shapes, x.dtype, x.device.type, weight_dtype, device)
    if plan == "timed":
        problem = Problem.of(x, cores, weight)
        return timed(problem._replace(tokens=1 << (max(problem.tokens, 1) - 1).bit_length()), x.device)
    return Plan.parse(plan, len(cores))


class Seconds(NamedTuple):
    """The seconds of each strategy: product, gradient of x, gradients of the cores, and both gradients together."""

    product: dict[Strategy, float]
    input_gradient: dict[Strategy, float]
    core_gradients: dict[Strategy, float]
    both: dict[Strategy, float]

    def plan(self) -> Plan:
        """Return the fastest plan."""
        pairs = {(a, b): s + t for a, s in self.input_gradient.items() for b, t in self.core_gradients.items()}
        pairs |= {(strategy, strategy): seconds for strategy, seconds in self.both.items()}
        return Plan(min(self.product, key=self.product.get), *min(pairs, key=pairs.get))


def fastest(problem: Problem) -> Plan:
    """Return the plan that is the fastest by the cost model of the device.

    The number of vectors is rounded down to its three leading bits, by less than a fifth, so that batches of varying
    length share a few plans.
    """
    return _fastest_rounded(problem, coefficients(problem.device_type, problem.dtype))


@lru_cache(maxsize=4096)
def _fastest_of_shapes(
    tokens: int,
    shapes: tuple[torch.Size, ...],
    dtype: torch.dtype,
    device_type: str,
    weight_dtype: torch.dtype | None,
    device: Device,
) -> Plan:
    """Return the plan by the attributes of the tensors: one look-up takes less time than to build a problem."""
    return _fastest_rounded(Problem.make(tokens, Sizes.of_shapes(shapes), dtype, device_type, weight_dtype), device)


def _fastest_rounded(problem: Problem, device: Device) -> Plan:
    low = max(problem.tokens.bit_length() - 3, 0)
    return _fastest(problem._replace(tokens=problem.tokens >> low << low), device)


@lru_cache(maxsize=4096)
def _fastest(problem: Problem, device: Device) -> Plan:
    return estimates(problem, device).plan()


def estimates(problem: Problem, device: Device) -> Seconds:
    """Return the seconds by the cost model."""
    given = problem.tokens, problem.sizes, problem.has_weight
    itemsize = problem.dtype.itemsize
    return _for_each_strategy(
        problem,
        lambda strategy: device.seconds(strategy.product_work(*given), itemsize),
        lambda strategy, wanted: device.seconds(strategy.gradient_work(*given, wanted), itemsize),
    )


@lru_cache(maxsize=256)
def timed(problem: Problem, device: torch.device) -> Plan:
    """Return the plan that is the fastest by the clock, on random tensors of these sizes."""
    return timings(problem, device).plan()


def timings(problem: Problem, device: torch.device) -> Seconds:
    """Return the seconds by the clock, on random tensors that leave torch's global generator alone."""
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
        return _for_each_strategy(
            problem,
            lambda strategy: shortest(lambda: strategy.product(x, cores, weight, None), device, ROUNDS),
            lambda strategy, wanted: shortest(lambda: strategy.gradients(x, g, cores, weight, wanted), device, ROUNDS),
        )


def _for_each_strategy(
    problem: Problem, product: Callable[[Strategy], float], gradients: Callable[[Strategy, Wanted], float]
) -> Seconds:
    return Seconds(
        {strategy: product(strategy) for strategy in problem.strategies()},
        *(
            {strategy: gradients(strategy, wanted) for strategy in problem.strategies(wanted)}
            for wanted in (Wanted.INPUT, Wanted.CORES, Wanted.BOTH)
        ),
    )
