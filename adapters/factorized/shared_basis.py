"""Improve a basis that several layers share, each layer with its own inputs, by alternating least squares.

    W_l (out, in) ~ U^T S_l^T V^T       cores V (1, 1, in, r), S_l the rows l of (r, L, 1, s), U (s, out, 1, 1)
    C_l (in, in)                        second moments of the inputs of layer l
    error                               sum_l |(W_l - U^T S_l^T V^T) X_l|^2

    S_l    S_l^T = (U U^T)^-1 U W_l C_l V (V^T C_l V)^-1
    U      U = (sum_l Y_l C_l Y_l^T)^-1 (sum_l Y_l C_l W_l^T),   Y_l = S_l^T V^T (s, in)

Each step is exact, so that the error never grows. V stays: it is that of the mean of all C_l.
"""

import torch
from torch import Tensor

SWEEPS, IMPROVEMENT = 30, 1e-3
"""The largest number of sweeps; the last one is the one that lowers the error by less than this share."""
JITTER = 1e-12
"""What is added to the diagonal of a normal matrix, relative to its mean."""


def improved_basis(
    weights: list[Tensor], cores: list[Tensor], moments: list[Tensor], errors: list[float] | None = None
) -> list[Tensor]:
    """The cores with a smaller error.

    Args:
        weights: W_l (out, in) of each layer, float64.
        cores: where to start.
        moments: C_l (in, in) of each layer.
        errors: gets the relative squared error after each sweep.
    """
    errors = [] if errors is None else errors
    V, U = cores[0][0, 0], cores[2][:, :, 0, 0]  # (in, r), (s, out)
    whole = sum(((W @ C) * W).sum() for W, C in zip(weights, moments, strict=True))
    products = [W @ C for W, C in zip(weights, moments, strict=True)]  # (out, in)
    inner = [V.T @ C @ V for C in moments]  # (r, r)
    targets = [product @ V for product in products]  # (out, r)
    while True:
        gram = U @ U.T  # (s, s)
        S = [
            solved(inner_l, solved(gram, U @ target).T)  # (s, out) x (out, r) -> (r, s)
            for target, inner_l in zip(targets, inner, strict=True)
        ]
        normal = sum(S_l.T @ inner_l @ S_l for S_l, inner_l in zip(S, inner, strict=True))  # (s, s)
        right = sum(S_l.T @ target.T for S_l, target in zip(S, targets, strict=True))  # (s, r) x (r, out)
        U = solved(normal, right)
        errors.append((1 - (U * right).sum() / whole).item())  # at the exact minimum over U
        if len(errors) == SWEEPS or (len(errors) > 1 and errors[-2] - errors[-1] < 2 * IMPROVEMENT * abs(errors[-2])):
            break
    middle = torch.stack(S, dim=1)[:, :, None]  # L x (r, s) -> (r, L, 1, s)
    return [cores[0], middle, U[:, :, None, None]]


def solved(matrix: Tensor, right: Tensor) -> Tensor:
    """matrix^-1 right, for a positive semi-definite matrix (n, n) and right (n, k)."""
    jitter = JITTER * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    factor, failed = torch.linalg.cholesky_ex(matrix + jitter)
    return torch.linalg.lstsq(matrix, right).solution if failed else torch.cholesky_solve(right, factor)
