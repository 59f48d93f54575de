"""The shape with the least error in the calibration, of the networks that a budget allows.

low rank is one of them, B (out, r) A (r, in), so that the choice is never worse than whitened low rank (SVD-LLM) of the
same matrix and budget in that calibration; of a stack, of its stacked rows. The others are sums of Kronecker products
in which one factor is small:

    1. each shape is decomposed with the input's moments as a Kronecker product, which takes one SVD
    2. with ``whiten: "full"``, the TRIED best of these starts get one sweep of alternating least squares
    3. the best of them gets the other sweeps if it is promising, and is chosen if its |(W - V) X| is less than that of
       low rank

Another shape can be better after all sweeps of its own, which would take as long again for each.
"""

from dataclasses import replace
from functools import cache
from heapq import nsmallest
from itertools import product

from torch import Tensor

from adapters.factorized.layers import NetworkSpec, rank_within
from adapters.factorized.moments import Moments, energy
from adapters.factorized.starts import dense
from adapters.factorized.targets import Target
from adapters.factorized.whitening import alternated, input_roots, kronecker_whitened, whitened_cores
from adapters.tensor_train.modes import RawShape

SMALL = (1, 4, 8, 16, 32)
"""The rows and columns of the small factor."""
TRIED = 3
"""How many shapes get a sweep."""
PROMISING = 1.25
"""How many times the error of low rank a network may have after one sweep to get the others."""


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
    starts = map(decomposed, kronecker_specs(target))
    tried = nsmallest(TRIED, starts, key=lambda network: error(*network))
    if not tried:
        return target, low_rank
    if target.config.whiten == "full":
        tried = [(spec, alternated(weight, spec, cores, mean, sweeps=1)) for spec, cores in tried]
    spec, cores = min(tried, key=lambda network: error(*network))
    if target.config.whiten == "full" and error(spec, cores) < PROMISING**2 * least:
        cores = alternated(weight, spec, cores, mean)
    return (replace(target, spec=spec), cores) if error(spec, cores) < least else (target, low_rank)


def kronecker_specs(target: Target) -> list[NetworkSpec]:
    """The sums of Kronecker products with a small factor, first or second, that the budget of the target allows."""
    out_features, in_features = target.size
    parts = len(target.linears)
    specs = []
    for m, n in product(SMALL, SMALL):
        rows, columns = out_features // parts, in_features  # of one linear
        if m * n == 1 or rows % m or columns % n or m == rows or n == columns:
            continue
        small_first: RawShape = ((m * parts, rows // m), (n, columns // n))
        small_second: RawShape = ((out_features // m, m), (columns // n, n))
        for shape in (small_first, small_second):
            rank = rank_within("tensor_train", shape, int(target.config.budget * out_features * in_features))
            if rank:
                specs.append(replace(target.spec, raw_shape=shape, ranks=(1, rank, 1)))
    return specs
