"""The gauge of a tensor train: changes of the cores that leave the matrix as it is, and rounding as one that does not.

G'_k = P_{k-1} G_k Q_k        Q_k (r_k, q_k),   P_k (q_k, r_k),   P_k Q_k = 1       at the bonds k = 1 .. d-1

    q_k = r_k   Q_k P_k = 1 as well, and the matrix is unchanged
    q_k < r_k   Q_k P_k is a projection, and the rank has been cut

W = L_k R_k at bond k, L_k (left entries, r_k) and R_k (r_k, right entries) the products of the cores on either side.
With L_k = U A and R_k = B V, where U and V^T have orthonormal columns, and A B = X S Y^T, the unfolding has the
singular values S, and Q = B Y_q S_q^{-1/2}, P = S_q^{-1/2} X_q^T A give L_k Q P R_k = (U X_q) (U X_q)^T W, the nearest
matrix of rank q. At all bonds at once this is a product of orthogonal projections of W, so that

    || W - W' ||^2 <= sum over bonds of the squares cut, s_{q+1}^2 + ...           (Oseledets 2011, theorem 2.2)

This determines only Q P. Of all factorisations of the projection Z D V^T, Q = Z D^{1/2}, P = D^{1/2} V^T is used: since
D >= 1 neither L_k Q nor P R_k is larger than before, and a bond that is not cut keeps Q = P = 1.

With gradients g_k = L_{k-1}^T (dL/dW) R_k^T, and L' = L Q, R' = P R, a gradient transforms as a covector,

    g'_k = Q_{k-1}^T g_k P_k^T        exact without cuts, otherwise up to the part cut
    v'_k the same with all entries squared, for means v_k of squared gradients: exact if the gradient's entries are
         uncorrelated with mean zero, otherwise without the mixed terms
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .contraction import autocast_off, contract
from .shapes import RawShape
from .tensor_train import TensorTrain
from .truncation import check_finite, error_budget

NOISE = 1e-12
"""A singular value below this fraction of || A || || B || is rounding error in float64."""


@dataclass(frozen=True)
class Gauge:
    """The maps at the bonds 1 .. d-1: ``to_left[k]`` is Q (r, q), ``to_right[k]`` P (q, r), in float64."""

    to_left: tuple[Tensor, ...]
    to_right: tuple[Tensor, ...]

    def core(self, k: int, core: Tensor) -> Tensor:
        """Return P_{k-1} G_k Q_k, (r, m, n, s) -> (q, m, n, t), in float64."""
        before, after = self._beside(k, core)
        return _between(before[1], core, after[0])

    def gradient(self, k: int, gradient: Tensor) -> Tensor:
        """Return Q_{k-1}^T g_k P_k^T for a gradient (r, m, n, s) or a mean of gradients, in float64."""
        before, after = self._beside(k, gradient)
        return _between(before[0].mT, gradient, after[1].mT)

    def squared_gradient(self, k: int, squares: Tensor) -> Tensor:
        """Return v'_k for a mean of squared gradients (r, m, n, s), in float64; see the head of this file."""
        before, after = self._beside(k, squares)
        return _between(before[0].mT.square(), squares, after[1].mT.square())

    def cores(self, cores: Sequence[Tensor]) -> list[Tensor]:
        """Return all new cores, in the dtypes of the given ones."""
        return [self.core(k, core).to(core.dtype) for k, core in enumerate(cores)]

    def _beside(self, k: int, like: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return Q and P at the bonds before and after core k; 1 at the ends."""
        end = (torch.ones(1, 1, dtype=torch.float64, device=like.device),) * 2
        bonds = [end, *zip(self.to_left, self.to_right, strict=True), end]
        return bonds[k], bonds[k + 1]


class Rounded(NamedTuple):
    """New cores, the gauge that produced them, and the Frobenius norm of the difference to the old matrix."""

    cores: list[Tensor]
    gauge: Gauge
    error: float


@torch.no_grad()
def singular_values(cores: Sequence[Tensor]) -> list[Tensor]:
    """Return the singular values of W unfolded at each bond, (at most r_k,), descending, in float64.

    Raises:
        ValueError: a core holds a NaN or an infinity, or is on the meta device.
    """
    return [torch.linalg.svdvals(a @ b) for a, b in _factors(cores)]  # (p, r) x (r, p') -> (at most r,)


def ranks_within(spectra: Sequence[Tensor], rel_tol: float) -> tuple[int, ...]:
    """Return the smallest ranks, possibly 0, that cut at most rel_tol || W || in total, divided evenly among the bonds.

    Args:
        spectra: the singular values of each bond.
        rel_tol: in [0, 1).
    """
    ranks = []
    for values in spectra:
        lost = values.flip(0).square().cumsum(0).sqrt().flip(0)  # lost[q]: the error of rank q
        ranks.append(int((lost > error_budget(rel_tol, values, len(spectra))).sum()))
    return tuple(ranks)


def useful_ranks(raw_shape: RawShape, ranks: Sequence[int]) -> tuple[int, ...]:
    """Return interior ranks clipped to r_k <= r_{k-1} m_k n_k and r_k <= m_{k+1} n_{k+1} r_{k+1}."""
    sizes = [m * n for m, n in zip(*raw_shape, strict=True)]
    closed = [1, *ranks, 1]
    for k in range(1, len(sizes)):
        closed[k] = min(closed[k], closed[k - 1] * sizes[k - 1])
    for k in range(len(sizes) - 1, 0, -1):
        closed[k] = min(closed[k], sizes[k] * closed[k + 1])
    return tuple(closed[1:-1])


@torch.no_grad()
def regauge(cores: Sequence[Tensor], ranks: Sequence[int]) -> Rounded:
    """Return a nearby train of smaller ranks, with the maps that transform gradients and optimizer state of the cores.

    Among directions without a singular value (all of them if one core is zero), those in which the two sides are
    largest are kept, so that the other cores survive.

    Args:
        cores: (r_{k-1}, m_k, n_k, r_k), r_0 = r_d = 1, of any floating-point dtype; not modified.
        ranks: the new interior ranks, from 1 to the present ones; `ranks_within` finds them for a tolerance.

    Raises:
        ValueError: a core is not finite, cores do not fit, or a rank is out of range.
    """
    train = TensorTrain(cores)
    before, bonds = train.ranks[1:-1], len(train.cores) - 1
    factors = _factors(cores)
    if len(ranks) != bonds or any(not 1 <= rank <= r for rank, r in zip(ranks, before, strict=False)):
        raise ValueError(
            f"ranks must have an entry for each of the {bonds} bonds, from 1 to the present {list(before)}; got "
            f"{list(ranks)}: choose smaller ones, or use `grown` for larger ones."
        )
    if tuple(ranks) == before:
        gauge = padding(before, before, cores[0])
        return Rounded(list(cores), gauge, 0.0)
    maps = [_cut(a, b, rank) for (a, b), rank in zip(factors, ranks, strict=True)]
    gauge = Gauge(*(tuple(maps_of_a_side) for maps_of_a_side in zip(*maps, strict=True)))
    new = gauge.cores(cores)
    difference = train.to(torch.float64) - TensorTrain(new).to(torch.float64)
    return Rounded(new, gauge, difference.norm().item())


@torch.no_grad()
def orthogonal_gauge(cores: Sequence[Tensor], center: int = -1) -> Gauge:
    """Return the gauge in which L_k has orthonormal columns left of core `center` and R_k orthonormal rows right of it.

    Of all such gauges, the symmetric one without rotations: Q_k = (L_k^T L_k)^{-1/2} (Lowdin 1950). Ranks are kept, and
    directions in which L_k or R_k is zero are unchanged: a train with a zero core can be made orthogonal around any
    core.

    Raises:
        ValueError: `center` is not the index of a core, or a core is not finite.
    """
    d = len(cores)
    if not -d <= center < d:
        raise ValueError(f"center must index one of the {d} cores; got {center}: use -{d} to {d - 1}.")
    maps = []
    for k, (a, b) in enumerate(_factors(cores), start=1):
        if k <= center % d:
            root, inverse = _square_root(a)
            maps.append((inverse, root))  # L Q orthonormal
        else:
            root, inverse = _square_root(b.mT)
            maps.append((root, inverse))  # P R orthonormal
    return Gauge(tuple(q for q, _ in maps), tuple(p for _, p in maps))


def padding(before: Sequence[int], after: Sequence[int], like: Tensor) -> Gauge:
    """Return the maps to larger or equal interior ranks: new rows and columns of cores and of gradients are zero."""
    options = {"dtype": torch.float64, "device": like.device}
    to_left = tuple(torch.eye(r, q, **options) for r, q in zip(before, after, strict=True))
    return Gauge(to_left, tuple(q.mT for q in to_left))


@torch.no_grad()
def grown(cores: Sequence[Tensor], ranks: Sequence[int]) -> tuple[list[Tensor], Gauge]:
    """Return the same matrix with larger interior ranks: new columns left of a bond are random, new rows right zero.

    The columns are normal with the mean square of their core (1 / (r m n) if it is zero), from torch's generator.

    Raises:
        ValueError: a rank is smaller than the present one, or larger than its neighbours can use.
    """
    train = TensorTrain(cores)
    before = train.ranks[1:-1]
    fits = len(ranks) == len(before) and useful_ranks(train.raw_shape, ranks) == tuple(ranks)
    if not fits or any(r > q for r, q in zip(before, ranks, strict=True)):
        raise ValueError(
            f"ranks must be at least the present {list(before)} and at most what both neighbours can use; got "
            f"{list(ranks)}: see `useful_ranks`, or use `regauge` for smaller ones."
        )
    gauge = padding(before, ranks, cores[0])
    new = gauge.cores(cores)
    for k, (core, old) in enumerate(zip(new, cores, strict=True)):
        r, m, n, s = old.shape
        scale = old.square().mean().sqrt() if old.any() else (r * m * n) ** -0.5
        core[:r, :, :, s:] = scale * torch.randn(r, m, n, core.shape[3] - s, dtype=old.dtype, device=old.device)
        new[k] = core
    return new, gauge


def _factors(cores: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return A (p, r_k) and B (r_k, p') of each bond, L_k = U A and R_k = B V, in float64."""
    for core in cores:
        check_finite(core, "Each core")
    wide = [core.detach().double() for core in cores]
    left, right = [], []
    a = b = torch.ones(1, 1, dtype=torch.float64, device=wide[0].device)
    with autocast_off(wide[0].device.type):
        for core in wide[:-1]:
            moved = torch.einsum("pr,rmns->pmns", a, core).flatten(0, 2)  # (p m n, s)
            a = torch.linalg.qr(moved, mode="r").R  # (p m n, s) -> (p', s)
            left.append(a)
        for core in reversed(wide[1:]):
            moved = torch.einsum("rmns,sp->rmnp", core, b).flatten(1)  # (r, m n p)
            b = torch.linalg.qr(moved.mT, mode="r").R.mT  # (m n p, r) -> (p', r) -> (r, p')
            right.append(b)
    return list(zip(left, reversed(right), strict=True))


def _cut(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return Q (r, rank) and P (rank, r) of a bond; 1 if nothing is cut."""
    r = b.shape[0]
    if rank == r:
        return (torch.eye(r, dtype=b.dtype, device=b.device),) * 2
    x, s, yh = torch.linalg.svd(a @ b, full_matrices=False)
    noise = NOISE * torch.linalg.matrix_norm(a) * torch.linalg.matrix_norm(b)
    known = min(rank, int((s > noise).sum()))
    roots = s[:known].sqrt()
    q = b @ yh[:known].mT / roots  # (r, p') x (p', known)
    p = x[:, :known].mT @ a / roots[:, None]  # (known, p) x (p, r)
    if known < rank:
        q, p = _completed(q, p, a, b, rank - known)
    z, stretch, vh = torch.linalg.svd(q @ p)
    roots = stretch[:rank].sqrt()
    return z[:, :rank] * roots, roots[:, None] * vh[:rank]


def _completed(q: Tensor, p: Tensor, a: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Extend Q (r, known) and P (known, r) by `count` directions, the strongest ones in their null spaces."""
    known = q.shape[1]
    right_null = torch.linalg.svd(p).Vh[known:].mT  # N (r, r - known), P N = 0
    left_null = torch.linalg.svd(q).U[:, known:]  # M (r, r - known), M^T Q = 0
    columns = right_null @ torch.linalg.pinv(left_null.mT @ right_null)  # N (M^T N)^{-1}: (r, r - known)
    strength = torch.zeros_like(columns.mT @ columns)
    for side, whole in ((a @ columns, a), (b.mT @ left_null, b)):
        size = torch.linalg.matrix_norm(whole)
        if size > 0:
            strength += (side / size).mT @ (side / size)
    chosen = torch.linalg.eigh(strength).eigenvectors[:, -count:]  # (r - known, count)
    return torch.cat([q, columns @ chosen], dim=1), torch.cat([p, chosen.mT @ left_null.mT])


def _square_root(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return (A^T A)^{1/2} and its inverse for A (p, r), each (r, r); 1 in the directions in which A is zero."""
    _, s, vh = torch.linalg.svd(a)
    stretch = torch.ones(vh.shape[0], dtype=a.dtype, device=a.device)
    seen = s > NOISE * s.max()
    stretch[: len(s)][seen] = s[seen]
    return vh.mT * stretch @ vh, vh.mT / stretch @ vh


def _between(left: Tensor, core: Tensor, right: Tensor) -> Tensor:
    """(q, r) x (r, m, n, s) x (s, t) -> (q, m, n, t), in float64."""
    return contract("qmns,st->qmnt", contract("qr,rmns->qmns", left, core.double()), right)
