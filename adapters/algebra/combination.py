"""combine and compare: the algebra of saved adapters, from folder to folder."""

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
    """Write sum_i w_i x_i of saved adapters as an adapter that loads as the first of them does.

    Args:
        directories: folders that ``Deltas.read`` takes.
        weights: one w_i for each, as they are: (1, -1) is a difference; None for the mean.
        max_rank, rel_tol: as ``Deltas.round`` takes them; without either the sum is exact, with ranks that add.
        task: the one whose modules are read, as ``Deltas.read`` takes it. They are written for all tasks.
        output: the new folder; it may be one of ``directories``.

    Returns:
        What the rounding cost. Storing in float32 adds a relative error of 6e-8 at most for each core.

    Raises:
        CheckpointError: a folder cannot be read, holds what is no delta of linears or modules for several tasks, or two
            name different bases. Nothing is written.
        ValueError: weights do not fit, or deltas of one linear have other sizes or raw shapes. Nothing is written.
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
    """Adapters against each other; prints as a table.

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
        apart = [
            [f"{k}: {name}", *(f"{distance:.4g}" for distance in distances)]
            for k, (name, distances) in enumerate(zip(self.names, self.distances, strict=True), 1)
        ]
        to = ["adapter", *(f"distance to {k}" for k in range(1, len(self.names) + 1))]
        return "\n\n".join([render_table("Norms and cosines", header, rows), render_table("Distances", to, apart)])


def compare(directories: Sequence[Directory], task: str | None = None) -> Comparison:
    """Norms, cosines and distances of saved adapters, linear by linear, also where their raw shapes differ.

    Args:
        directories, task: as ``Deltas.read`` takes them.

    Raises:
        CheckpointError: a folder cannot be read, or holds what is no delta of linears, or two name different bases.
        ValueError: deltas of one linear have other sizes.
    """
    adapters = [Deltas.read(directory, task).per_linear() for directory in directories]
    check_one_base(directories)
    norms = tuple(deltas.norm() for deltas in adapters)
    cosines = tuple(tuple(a.cosine(b) if a.norm() and b.norm() else None for b in adapters) for a in adapters)
    distances = tuple(tuple(0.0 if a is b else a.distance(b) for b in adapters) for a in adapters)
    return Comparison(tuple(map(str, directories)), norms, cosines, distances)
