"""Alternating least squares: the cores of a train V (out, in) that minimise |(W - V) S|, one core at a time.

C = S S^T (in, in)     second moments of the inputs
core k                 (r, m, n, s), between the chains left (M1, N1, r) and right (s, M2, N2)

V is linear in core k, and its rows i in m_k are independent of each other, so they share one normal matrix:

    H [(a j b), (a' j' b')] = sum  left[I, J, a] left[I, J', a'] C[(J j P), (J' j' P')] right[b, Q, P] right[b', Q, P']
    F [(a j b), i]          = sum  left[I, J, a] (W C)[(I i Q), (J j P)] right[b, Q, P]         H G = F

H has (r n s)^2 entries. If these are many, the present core is improved by conjugate gradients instead, with H G from
the dense matrix V times C.

The other cores are orthonormal meanwhile. A step that does not lower the error is undone, so the error never grows; it
ends when a sweep over all cores lowers it by less than a share.
"""

from collections.abc import Callable

import torch
from torch import Tensor

import t3nsor as t3
from t3nsor.contraction.chains import chain

SWEEPS = 30
"""The largest number of sweeps."""
IMPROVEMENT = 1e-3
"""The last sweep is the one that lowers the error by less than this share."""
DIRECT = 2048
"""The largest r n s for which H is built."""
STEPS = 8
"""Conjugate gradients that a larger core gets: more of them gain less than the next core."""
JITTER = 1e-12
"""What is added to the diagonal of H, relative to its mean."""


def least_squares(
    weight: Tensor, cores: list[Tensor], moments: Tensor, errors: list[float] | None = None, sweeps: int = SWEEPS
) -> Tensor:
    """The dense matrix (out, in) of the improved train.

    Args:
        weight: W (out, in), float64.
        cores: where to start, (r, m, n, s).
        moments: C (in, in).
        errors: gets |(W - V) S|^2 / |W S|^2 at the start and after each step.
        sweeps: the largest number of them.
    """
    errors = [] if errors is None else errors
    product = weight @ moments  # W C, (out, in)
    whole = (product * weight).sum()
    train = t3.TensorTrain(cores)
    best, dense = _error(weight, train.full(), moments, whole), train.full()
    errors.append(best)
    for _ in range(sweeps):
        before = best
        for k in range(len(cores)):
            train = train.orthogonalize(k)
            changed = list(train.cores)
            changed[k] = best_core(changed, k, product, moments)
            candidate = t3.TensorTrain(changed)
            full = candidate.full()
            error = _error(weight, full, moments, whole)
            if error < best:
                train, best, dense = candidate, error, full
            errors.append(best)
        if best == 0 or before**0.5 - best**0.5 < IMPROVEMENT * before**0.5:
            break
    return dense


def best_core(cores: list[Tensor], k: int, product: Tensor, moments: Tensor) -> Tensor:
    """The core k (r, m, n, s) with the least error, all others given, or a better one if it is large.

    Args:
        product: W C (out, in).
        moments: C (in, in).
    """
    r, _, n, s = cores[k].shape
    one = torch.ones(1, 1, 1, dtype=product.dtype, device=product.device)
    left = chain(cores[:k])[0] if k else one  # (M1, N1, r)
    right = chain(cores[k + 1 :])[..., 0] if k + 1 < len(cores) else one  # (s, M2, N2)
    target = _onto_core(product, left, right, cores[k].shape)
    if r * n * s <= DIRECT:
        return _solved(left, right, n, moments, target)
    return _improved(cores, k, lambda dense: _onto_core(dense @ moments, left, right, target.shape), target)


def _onto_core(matrix: Tensor, left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A matrix (out, in) contracted with both chains, to the shape (r, m, n, s) of the core between them."""
    (M1, N1, _), (_, M2, N2) = left.shape, right.shape
    _, m, n, _ = shape
    half = torch.einsum("IiQJjP,bQP->IiJjb", matrix.reshape(M1, m, M2, N1, n, N2), right)
    return torch.einsum("IJa,IiJjb->aijb", left, half)


def _solved(left: Tensor, right: Tensor, n: int, moments: Tensor, target: Tensor) -> Tensor:
    """G (r, m, n, s) by the normal matrix H."""
    (_, N1, r), (s, _, N2), m = left.shape, right.shape, target.shape[1]
    of_right = _sandwiched(moments.reshape(N1 * n, N2, N1 * n, N2), right).reshape(N1, n, N1, n, s, s)  # J j K l b d
    by_left = of_right.permute(1, 4, 0, 3, 5, 2).reshape(n * s, N1, n * s, N1)  # (j b) J (l d) K
    normal = _sandwiched(by_left, left.permute(2, 0, 1)).permute(2, 0, 3, 1).reshape(r * n * s, r * n * s)
    normal.diagonal().add_(JITTER * normal.diagonal().mean())
    target = target.permute(0, 2, 3, 1).reshape(r * n * s, m)
    factor, failed = torch.linalg.cholesky_ex(normal)
    solved = torch.linalg.lstsq(normal, target).solution if failed else torch.cholesky_solve(target, factor)
    return solved.reshape(r, n, s, m).permute(0, 3, 1, 2).contiguous()


def _sandwiched(matrix: Tensor, chain: Tensor) -> Tensor:
    """(x, y, b, d): sum matrix[x, P, y, R] chain[b, Q, P] chain[d, Q, R], in the order with fewer products."""
    (x, P, y, R), (b, Q, _) = matrix.shape, chain.shape
    if b * b * P * R * (Q + x * y) <= x * y * P * Q * b * (R + b):
        pairs = torch.einsum("bQP,dQR->bPdR", chain, chain)
        return torch.einsum("xPyR,bPdR->xybd", matrix, pairs)
    half = torch.einsum("xPyR,dQR->xPydQ", matrix, chain)
    return torch.einsum("xPydQ,bQP->xybd", half, chain)


def _improved(cores: list[Tensor], k: int, normal: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """G (r, m, n, s) after some conjugate gradients; ``normal`` is H G given the dense matrix of G."""

    def times_normal(core: Tensor) -> Tensor:
        return normal(t3.TensorTrain([*cores[:k], core, *cores[k + 1 :]]).full())

    core = cores[k]
    residual = target - times_normal(core)
    direction, square = residual, residual.square().sum()
    for _ in range(STEPS):
        product = times_normal(direction)
        curvature = (direction * product).sum()
        if curvature <= 0:
            break
        step = square / curvature
        core, residual = core + step * direction, residual - step * product
        before, square = square, residual.square().sum()
        direction = residual + square / before * direction
    return core


def _error(weight: Tensor, dense: Tensor, moments: Tensor, whole: Tensor) -> float:
    """|(W - V) S|^2 / |W S|^2, which rounding would let be less than zero."""
    difference = weight - dense
    return (((difference @ moments) * difference).sum() / whole).clamp(min=0).item()
