"""Alternating least squares: the cores of a train V (out, in) that minimise |(W - V) S|, one core at a time.

C = S S^T (in, in)     second moments of the inputs
core k                 (r, m, n, s), between the chains left (M1, N1, r) and right (s, M2, N2)

V is linear in core k, and its rows i in m_k are independent of each other, so they share one normal matrix:

    H [(a j b), (a' j' b')] = sum  left[I, J, a] left[I, J', a'] C[(J j P), (J' j' P')] right[b, Q, P] right[b', Q, P']
    F [(a j b), i]          = sum  left[I, J, a] (W C)[(I i Q), (J j P)] right[b, Q, P]         H G = F

The other cores are orthonormal meanwhile. A step that does not lower the error is undone, so the error never grows; it
ends when a sweep over all cores lowers it by less than a share.
"""

import torch
from torch import Tensor

import t3nsor as t3
from t3nsor.contraction.chains import chain

SWEEPS = 30
"""The largest number of sweeps."""
IMPROVEMENT = 1e-3
"""The last sweep is the one that lowers the error by less than this share."""
JITTER = 1e-12
"""What is added to the diagonal of H, relative to its mean."""


def least_squares(weight: Tensor, cores: list[Tensor], moments: Tensor, errors: list[float] | None = None) -> Tensor:
    """The dense matrix (out, in) of the improved train.

    Args:
        weight: W (out, in), float64.
        cores: where to start, (r, m, n, s).
        moments: C (in, in).
        errors: gets |(W - V) S|^2 / |W S|^2 at the start and after each step.
    """
    errors = [] if errors is None else errors
    product = weight @ moments  # W C, (out, in)
    whole = (product * weight).sum()
    train = t3.TensorTrain(cores)
    best, dense = _error(weight, train.full(), moments, whole), train.full()
    errors.append(best)
    for _ in range(SWEEPS):
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
    """The core k (r, m, n, s) with the least error, all others given; product is W C (out, in)."""
    r, m, n, s = cores[k].shape
    one = torch.ones(1, 1, 1, 1, dtype=product.dtype, device=product.device)
    left = chain(cores[:k])[0] if k else one[0]  # (M1, N1, r)
    right = chain(cores[k + 1 :])[..., 0] if k + 1 < len(cores) else one[0]  # (s, M2, N2)
    (M1, N1, _), (_, M2, N2) = left.shape, right.shape
    lefts = torch.einsum("IJa,IKc->JaKc", left, left)
    rights = torch.einsum("bQP,dQR->bPdR", right, right)
    blocks = moments.reshape(N1, n, N2, N1, n, N2)
    half = torch.einsum("JjPKlR,bPdR->JjKlbd", blocks, rights)
    normal = torch.einsum("JaKc,JjKlbd->ajbcld", lefts, half).reshape(r * n * s, r * n * s)
    target = product.reshape(M1, m, M2, N1, n, N2)
    target = torch.einsum("IiQJjP,bQP->IiJjb", target, right)
    target = torch.einsum("IJa,IiJjb->ajbi", left, target).reshape(r * n * s, m)
    normal.diagonal().add_(JITTER * normal.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(normal)
    solved = torch.linalg.lstsq(normal, target).solution if failed else torch.cholesky_solve(target, factor)
    return solved.reshape(r, n, s, m).permute(0, 3, 1, 2).contiguous()


def _error(weight: Tensor, dense: Tensor, moments: Tensor, whole: Tensor) -> float:
    difference = weight - dense
    return (((difference @ moments) * difference).sum() / whole).item()
