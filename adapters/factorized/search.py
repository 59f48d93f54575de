"""The shape with the least error in the calibration, of the networks that a budget allows.

low rank is one of them, B (out, r) A (r, in), so that the choice is never worse than whitened low rank (SVD-LLM) of the
same budget in that calibration. The others are sums of Kronecker products in which one factor is small:

    1. each shape is decomposed with the input's moments as a Kronecker product, which takes one SVD
    2. with ``whiten: "full"``, the best of them are improved by alternating least squares
    3. the least |(W - V) X| is chosen, low rank if errors are equal
"""

from dataclasses import replace

from torch import Tensor

from adapters.factorized.layers import NetworkSpec, rank_within
from adapters.factorized.moments import Moments, output_error
from adapters.factorized.planning import Target
from adapters.factorized.starts import dense
from adapters.factorized.whitening import whitened_cores
from adapters.tensor_train.modes import RawShape

SMALL = (1, 2, 3, 4, 8, 16)
"""The rows and columns of the small factor."""
IMPROVED = 2
"""How many shapes of Kronecker products alternating least squares improves."""


def searched(target: Target, moments: Moments) -> tuple[Target, list[Tensor]]:
    """The target with the network of the least error, and its cores in float64.

    Args:
        target: of the format "searched", with the network of low rank.
        moments: of its inputs.
    """
    weight, mean = target.weight, moments.mean

    def error(spec: NetworkSpec, cores: list[Tensor]) -> float:
        return output_error([weight], [dense(spec, cores)], [moments])

    best = target.spec, whitened_cores(weight, target.spec, mean, "full")
    screened = []
    for spec in kronecker_specs(target):
        cores = whitened_cores(weight, spec, mean, "kronecker")
        screened.append((error(spec, cores), spec, cores))
    screened.sort(key=lambda candidate: candidate[0])
    for _, spec, cores in screened[:IMPROVED]:
        if target.config.whiten == "full":
            cores = whitened_cores(weight, spec, mean, "full")
        if error(spec, cores) < error(*best):
            best = spec, cores
    spec, cores = best
    return replace(target, spec=spec), cores


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
