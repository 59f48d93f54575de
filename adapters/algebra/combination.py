"""combine and compare: sums and differences of saved adapters, given and written as folders.

Deltas of one linear can be added core by core if they have the same raw shape. Adapters of different ranks often have
different ones, as the default shape depends on the rank; the sum of any two is exact in the form B A:

    shape             form of sum_i w_i x_i                        limited ranks
    None              that of the adapters, which must agree       TT-rounding
    "low_rank"        B (out, r) and A (r, in), matrix ranks add   truncated SVD
    "first"           the raw shapes of the first adapter          TT-SVD
    [[...], [...]]    this raw shape                               TT-SVD

Without a limit the sum is exact, at the smallest ranks that hold it to ``EXACT`` of its norm for the last two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adapters.algebra.deltas import Deltas
from adapters.algebra.folders import Directory, check_one_base, check_one_task
from adapters.algebra.report import ApproximationReport
from adapters.algebra.vectors import linear_combination
from adapters.tables import render_table
from adapters.validation import check_type, nearest_name, refuse
from t3nsor.shapes import RawShape

FIRST, LOW_RANK = "first", "low_rank"
EXACT = 1e-12
Shape = Literal["first", "low_rank"] | Sequence[Sequence[int]]


def combine(
    directories: Sequence[Directory],
    weights: Sequence[float] | None = None,
    *,
    shape: Shape | None = None,
    max_rank: int | Sequence[int] | None = None,
    rel_tol: float | None = None,
    task: str | None = None,
    output: Directory,
) -> ApproximationReport:
    """Write sum_i w_i x_i of saved adapters as a new adapter, which loads like the first of them.

    Args:
        directories: folders that ``Deltas.read`` supports.
        weights: w_i, not normalised: (1, -1) is a difference; None for the mean.
        shape: the form of the sum, as above: "low_rank", "first" or a raw shape ((m_1..m_d), (n_1..n_d)), swapped for
            linears of swapped sizes; with one, site modes are written as a delta for each linear. None keeps the raw
            shapes, which must agree.
        max_rank, rel_tol: see ``Deltas.round``; by default the sum is exact, and ranks add.
        task: whose modules are read, see ``Deltas.read``. They are written for all tasks.
        output: the new folder; it may be one of ``directories``.

    Returns:
        The error of rounding. Storing in float32 adds a relative error of at most 6e-8 for each core.

    Raises:
        CheckpointError: a folder cannot be read, holds modules other than deltas of linears or modules for several
            tasks, or two name different bases. Nothing is written.
        ValueError: weights or the shape are invalid, or deltas of one linear differ in size, or in raw shape without
            ``shape``. Nothing is written.
    """
    adapters = [Deltas.read(directory, task) for directory in directories]
    check_one_task(directories)
    check_one_base(directories)
    rounded, report = weighted_sum(adapters, weights, shape, max_rank, rel_tol)
    rounded.write(output, like=directories[0])
    return report


def weighted_sum(
    adapters: Sequence[Deltas],
    weights: Sequence[float] | None = None,
    shape: Shape | None = None,
    max_rank: int | Sequence[int] | None = None,
    rel_tol: float | None = None,
) -> tuple[Deltas, ApproximationReport]:
    """Return sum_i w_i x_i in a form of the table above, and the error of rounding.

    Args:
        weights, shape, max_rank, rel_tol: see ``combine``.

    Raises:
        ValueError: weights or the shape are invalid, or deltas of one linear differ in size, or in raw shape without
            ``shape``.
    """
    shape = _checked(shape)
    if shape is not None:
        adapters = [deltas.per_linear() for deltas in adapters]
    raw_shape = {path: train.raw_shape for deltas in reversed(adapters) for path, train in deltas.items()}
    if shape is not None:
        adapters = [deltas.to_low_rank() for deltas in adapters]
    total = Deltas.mean(adapters) if weights is None else linear_combination(adapters, weights)
    if shape in (None, LOW_RANK):
        return total.round(max_rank, rel_tol)
    rel_tol = EXACT if max_rank is None and rel_tol is None else rel_tol
    return total.reshaped(raw_shape if shape == FIRST else shape, max_rank=max_rank, rel_tol=rel_tol)


def _checked(shape: Shape | None) -> Shape | None:
    if isinstance(shape, str) and shape not in (FIRST, LOW_RANK):
        fix = f"{nearest_name(shape, (FIRST, LOW_RANK))} A raw shape is for example [[12, 16, 16], [8, 8, 12]]"
        refuse("shape", "must be a name or a raw shape", repr(shape), fix, "combine")
    return shape if shape is None or isinstance(shape, str) else check_type("shape", shape, RawShape, "combine")


@dataclass(frozen=True)
class Comparison:
    """Norms, pairwise cosines and distances of adapters; prints as a table.

    ``cosines`` and ``distances`` are square, in the order of ``names``; a cosine with a zero adapter is None.
    """

    names: tuple[str, ...]
    norms: tuple[float, ...]
    cosines: tuple[tuple[float | None, ...], ...]
    distances: tuple[tuple[float, ...], ...]

    def __str__(self) -> str:
        header = ["adapter", "norm", *(f"cosine with {k}" for k in range(1, len(self.names) + 1))]
        rows = [
            [f"{k}: {name}", f"{norm:.4g}", *("-" if cosine is None else f"{cosine:.4f}" for cosine in cosines)]
            for k, (name, norm, cosines) in enumerate(zip(self.names, self.norms, self.cosines, strict=True), 1)
        ]
        distances = [
            [f"{k}: {name}", *(f"{distance:.4g}" for distance in row)]
            for k, (name, row) in enumerate(zip(self.names, self.distances, strict=True), 1)
        ]
        columns = ["adapter", *(f"distance to {k}" for k in range(1, len(self.names) + 1))]
        return "\n\n".join(
            [render_table("Norms and cosines", header, rows), render_table("Distances", columns, distances)]
        )


def compare(directories: Sequence[Directory], task: str | None = None) -> Comparison:
    """Return norms, cosines and distances of saved adapters, linear by linear; raw shapes may differ.

    Args:
        directories, task: see ``Deltas.read``.

    Raises:
        CheckpointError: a folder cannot be read or holds modules other than deltas of linears, or two name different
            bases.
        ValueError: deltas of one linear differ in size.
    """
    adapters = [Deltas.read(directory, task).per_linear() for directory in directories]
    check_one_base(directories)
    norms = tuple(deltas.norm() for deltas in adapters)
    cosines = tuple(tuple(a.cosine(b) if a.norm() and b.norm() else None for b in adapters) for a in adapters)
    distances = tuple(tuple(0.0 if a is b else a.distance(b) for b in adapters) for a in adapters)
    return Comparison(tuple(map(str, directories)), norms, cosines, distances)
