"""The initial cores of a network in place of W (out, in).

    decomposition     the nearest network: Van Loan's for two cores, the TT-SVD for more; deterministic, in float64
    norm_corrected    s times it, s = |W| / |decomposition| (Frobenius)
    pruned            A = W[::m2, ::n2], the rows and columns kept, and B = 1 in its first entry, .1 elsewhere (with 0
                      the other rows and columns would get no gradient)
    random            normal entries with the mean square of W

The singular values of a bond are split evenly over its two cores (``t3nsor.even_decomposition``).
Source of the first: Van Loan and Pitsianis 1993, "Approximation with Kronecker products".
"""

import torch
from torch import Tensor

import t3nsor as t3
from adapters.factorized.configuration import EMBEDDING, SHARED_BASIS
from adapters.factorized.embedding import weighed_table
from adapters.factorized.layers import NetworkSpec
from adapters.factorized.shared_basis import improved_basis
from adapters.factorized.targets import Target
from adapters.factorized.whitening import whitened_cores
from adapters.validation import ConfigurationError
from t3nsor.even_decomposition import even_cores

PRUNED = 0.1
"""The entries of the second factor for rows and columns that are not kept."""


Inputs = list[Tensor] | None
"""Second moments of each input, or none."""


def start_cores(target: Target, moments: Inputs = None) -> list[Tensor]:
    """The initial cores, in the dtype and on the device of the weight.

    Args:
        moments: the second moments (in, in) of the inputs of each linear, for ``whiten``; else None.
    """
    like = target.like
    if like.is_meta:
        return [torch.empty(shape, dtype=like.dtype, device="meta") for shape in target.spec.core_shapes]
    cores = STARTS[target.config.start](target, moments)
    return [core.to(like.dtype).contiguous() for core in cores]


def decomposed(target: Target, moments: Inputs) -> list[Tensor]:
    """The decomposition, weighed by the inputs if there are moments."""
    if moments is not None and target.config.target_modules == EMBEDDING:
        return weighed_table(target.weight, target.spec, *moments)
    if moments is not None:
        cores = whitened_cores(target.weight, target.spec, sum(moments) / len(moments), target.config.whiten)
        if target.config.format == SHARED_BASIS and target.config.whiten == "full":
            cores = improved_basis(target.weights, cores, moments)
        return cores
    return even_cores(target.weight, target.spec.core_shapes)


def norm_corrected(target: Target, moments: Inputs) -> list[Tensor]:
    """The decomposition times a number, by which all cores are multiplied evenly."""
    _check_is_not_zero(target, "A norm-corrected start has the norm of the weight")
    cores = decomposed(target, moments)
    scale = (target.weight.norm() / dense(target.spec, cores).norm()).item()
    return [core * scale ** (1 / len(cores)) for core in cores]


def pruned(target: Target, moments: Inputs) -> list[Tensor]:
    """The kept rows and columns as the first factor of one Kronecker product."""
    (_, m2), (_, n2) = target.spec.raw_shape
    second = torch.full((1, m2, n2, 1), PRUNED, dtype=torch.float64, device=target.weight.device)
    second[0, 0, 0, 0] = 1.0
    return [target.weight[::m2, ::n2][None, ..., None], second]  # (1, m1, n1, 1), (1, m2, n2, 1)


def random(target: Target, moments: Inputs) -> list[Tensor]:
    """Normal cores, drawn from torch's global generator."""
    _check_is_not_zero(target, "A random start has the mean square of the weight")
    weight, spec = target.weight, target.spec
    std = weight.square().mean().sqrt().item()
    rank = spec.ranks if spec.format == "tensor_train" else spec.ranks[:-1]
    network = t3.random_matrix(spec.raw_shape, rank, std, spec.format, torch.float64, weight.device)
    return list(network.cores)


def _check_is_not_zero(target: Target, rule: str) -> None:
    if not target.weight.any():
        raise ConfigurationError(
            f'{rule}; got a weight of zeros at {target.name}: leave it out, or use start "decomposition".'
        )


def dense(spec: NetworkSpec, cores: list[Tensor]) -> Tensor:
    """The matrix (out, in) of cores."""
    return t3.FORMATS[spec.format](cores).full()


STARTS = {"decomposition": decomposed, "norm_corrected": norm_corrected, "pruned": pruned, "random": random}
"""The starts by name."""
