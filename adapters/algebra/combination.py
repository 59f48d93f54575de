"""combine and compare: sums and differences of saved adapters, given and written as folders."""

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.algebra.deltas import Deltas
from adapters.algebra.folders import Directory, check_one_base, check_one_task
from adapters.algebra.report import ApproximationReport
from adapters.algebra.vectors import linear_combination
from adapters.tables import render_table


def combine(
    directories: Sequence[Directory],
    weights: Sequence[float] | None = None,
    *,
    max_rank: int | Sequence[int] | None = None,
    rel_tol: float | None = None,
    task: str | None = None,
    output: Directory,
) -> ApproximationReport:
    """Write sum_i w_i x_i of saved adapters as a new adapter, which loads like the first of them.

    Args:
        directories: folders that ``Deltas.read`` supports.
        weights: w_i, not normalised: (1, -1) is a difference; None for the mean.
        max_rank, rel_tol: see ``Deltas.round``; by default the sum is exact, and ranks add.
        task: whose modules are read, see ``Deltas.read``. They are written for all tasks.
        output: the new folder; it may be one of ``directories``.

    Returns:
        The error of rounding. Storing in float32 adds a relative error of at most 6e-8 for each core.

    Raises:
        CheckpointError: a folder cannot be read, holds modules other than deltas of linears or modules for several
            tasks, or two name different bases. Nothing is written.
        ValueError: weights are invalid, or deltas of one linear differ in size or raw shape. Nothing is written.
    """
    adapters = [Deltas.read(directory, task) for directory in directories]
    check_one_task(directories)
    check_one_base(directories)
    total = Deltas.mean(adapters) if weights is None else linear_combination(adapters, weights)
    rounded, report = total.round(max_rank, rel_tol)
    rounded.write(output, like=directories[0])
    return report


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
