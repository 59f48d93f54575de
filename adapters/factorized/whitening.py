"""Decompositions that weigh the inputs by their second moments C (in, in): the least |(W - V) X| instead of |W - V|.

    kronecker   C ~ C_1 x ... x C_d over the input modes, C_k = L_k L_k^T (Cholesky): the decomposition of
                W (L_1 x ... x L_d), whose core k is then multiplied by L_k^-1 along its inputs n_k
    full        C itself: the same where one core has all inputs, as in low_rank, which is SVD-LLM (Wang et al. 2024,
                arXiv:2403.07378); elsewhere alternating least squares from there, ``adapters.factorized.alternating``

"x" is the Kronecker product. The nearest product to C is found mode by mode, C_k = C contracted with the other factors,
a power iteration that for d = 2 ends in the decomposition of Van Loan and keeps every C_k positive semi-definite.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.factorized.alternating import SWEEPS, least_squares
from adapters.factorized.layers import NetworkSpec
from adapters.factorized.moments import cholesky
from t3nsor.even_decomposition import even_cores

ITERATIONS, CHANGE = 100, 1e-10
"""The power iteration ends after so many rounds, or when the last one changed no factor by more than this share."""


def whitened_cores(weight: Tensor, spec: NetworkSpec, moments: Tensor, whiten: str) -> list[Tensor]:
    """The cores of the decomposition of ``weight`` (out, in), float64, with respect to moments (in, in).

    Args:
        whiten: "kronecker" or "full".
    """
    cores = kronecker_whitened(weight, spec, input_roots(moments, spec.raw_shape[1]))
    return alternated(weight, spec, cores, moments) if whiten == "full" else cores


def kronecker_whitened(weight: Tensor, spec: NetworkSpec, roots: Sequence[Tensor]) -> list[Tensor]:
    """The cores of the decomposition with respect to a Kronecker product of moments, of which ``roots`` are the L_k."""
    cores = even_cores(times_kronecker(weight, roots), spec.core_shapes)
    return [unwhitened(core, root) for core, root in zip(cores, roots, strict=True)]


def alternated(
    weight: Tensor, spec: NetworkSpec, cores: list[Tensor], moments: Tensor, sweeps: int = SWEEPS
) -> list[Tensor]:
    """The cores after alternating least squares; the same where one core has all inputs, as they are the best then."""
    if sum(n > 1 for n in spec.raw_shape[1]) == 1:
        return cores
    return even_cores(least_squares(weight, cores, moments, sweeps=sweeps), spec.core_shapes)


def input_roots(moments: Tensor, columns: Sequence[int]) -> list[Tensor]:
    """L_k (n_k, n_k) of each core, see the head of this file."""
    return [cholesky(factor) for factor in kronecker_factors(moments, columns)]


def kronecker_factors(moments: Tensor, columns: Sequence[int]) -> list[Tensor]:
    """Factors C_k (n_k, n_k) of the Kronecker product that is nearest to moments (in, in)."""
    d = len(columns)
    tensor = moments.reshape(*columns, *columns)
    factors = [torch.eye(n, dtype=moments.dtype, device=moments.device) / n**0.5 for n in columns]
    for _ in range(ITERATIONS):
        change = 0.0
        for k in range(d):
            updated = _contracted(tensor, factors, k)
            norm = updated.norm()
            change = max(change, (updated / norm - factors[k]).abs().max().item())
            factors[k] = updated / norm
        if change < CHANGE:
            break
    factors[0] = factors[0] * norm
    return factors


def _contracted(tensor: Tensor, factors: Sequence[Tensor], k: int) -> Tensor:
    """C (n_1, ..., n_d, n_1, ..., n_d) contracted with all factors but the k-th, (n_k, n_k)."""
    d = len(factors)
    operands: list = [tensor, list(range(2 * d))]
    for mode in range(d):
        if mode != k:
            operands += [factors[mode], [mode, d + mode]]
    return torch.einsum(*operands, [k, d + k])


def times_kronecker(matrix: Tensor, roots: Sequence[Tensor]) -> Tensor:
    """matrix (out, in) times L_1 x ... x L_d, mode by mode."""
    product = matrix.reshape(len(matrix), *(len(root) for root in roots))
    for mode, root in enumerate(roots, 1):
        product = torch.tensordot(product, root, dims=([mode], [0])).movedim(-1, mode)  # (out, ..., n_k, ...)
    return product.reshape(matrix.shape)


def unwhitened(core: Tensor, root: Tensor) -> Tensor:
    """A core (r, m, n, s) times L^-1 (n, n) along its inputs."""
    columns_last = core.transpose(2, 3)  # (r, m, s, n)
    solved = torch.linalg.solve_triangular(root, columns_last.reshape(-1, len(root)), upper=False, left=False)
    return solved.reshape(columns_last.shape).transpose(2, 3)
