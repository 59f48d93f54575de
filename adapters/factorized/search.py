"""The shape with the least error in the calibration, of the networks that a budget allows.

low rank is one of them, B (out, r) A (r, in), so that the choice is never worse than whitened low rank (SVD-LLM) of the
same budget in that calibration. The others are sums of Kronecker products in which one factor is small:

    1. each shape is decomposed with the input's moments as a Kronecker product, which takes one SVD
    2. with ``whiten: "full"``, the best of them gets a sweep of alternating least squares, and all the others if it is
       promising
    3. it is chosen if its |(W - V) X| is less than that of low rank
"""

from dataclasses import replace
from functools import cache

from torch import Tensor

from adapters.factorized.layers import NetworkSpec, rank_within
from adapters.factorized.moments import Moments, energy
from adapters.factorized.starts import dense
from adapters.factorized.targets import Target
from adapters.factorized.whitening import alternated, input_roots, kronecker_whitened, whitened_cores
from adapters.tensor_train.modes import RawShape

SMALL = (1, 4, 8, 16, 32)
"""The rows and columns of the small factor."""
PROMISING = 1.25
"""How many times the error of low rank a network may have after one sweep: those after it gain less than this."""


def searched(target: Target, moments: Moments) -> tuple[Target, list[Tensor]]:
    """The target with the network of the least error, and its cores in float64.

    Args:
        target: of the format "searched", with the network of low rank.
        moments: of its inputs.
    """
    weight, mean = target.weight, moments.mean
    roots = cache(lambda columns: input_roots(mean, columns))

    def error(spec: NetworkSpec, cores: list[Tensor]) -> float:
        return energy(weight - dense(spec, cores), mean).item()

    def decomposed(spec: NetworkSpec) -> tuple[NetworkSpec, list[Tensor]]:
        return spec, kronecker_whitened(weight, spec, roots(spec.raw_shape[1]))

    low_rank = whitened_cores(weight, target.spec, mean, "full")
    least = error(target.spec, low_rank)
    found = min(map(decomposed, kronecker_specs(target)), key=lambda network: error(*network), default=None)
    if found is None:
        return target, low_rank
    spec, cores = found
    if target.config.whiten == "full":
        cores = alternated(weight, spec, cores, mean, sweeps=1)
        if error(spec, cores) < PROMISING**2 * least:
            cores = alternated(weight, spec, cores, mean)
    return (replace(target, spec=spec), cores) if error(spec, cores) < least else (target, low_rank)


def kronecker_specs(target: Target) -> list[NetworkSpec]:
    """The sums of Kronecker products with a small factor, first or second, that the budget of the target allows."""
    out_features, in_features = target.size
    parts = len(target.linears)
    specs = []
    for m in SMALL:
        for n in SMALL:
            if m * n == 1 or out_features % (m * parts) or in_features % n:
                continue
            small, large = (m * parts, n), (out_features // (m * parts), in_features // n)
            shapes: list[RawShape] = [((small[0], large[0]), (small[1], large[1]))]
            small, large = (m, n), (out_features // m, in_features // n)
            shapes.append(((large[0], small[0]), (large[1], small[1])))
            for shape in shapes:
                rank = rank_within("tensor_train", shape, int(target.config.budget * out_features * in_features))
                if rank:
                    specs.append(replace(target.spec, raw_shape=shape, ranks=(1, rank, 1)))
    return specs
