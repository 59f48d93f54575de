"""The error of an approximation of deltas, for each linear and in total, in the Frobenius norm.

error       || T - T' ||  from orthogonal cores, accurate also if T and T' agree in most digits
total       the square root of the sum of squares over the linears
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import t3nsor as t3
from adapters.algebra.low_rank import distance
from adapters.tables import render_table


@dataclass(frozen=True)
class Approximation:
    """One linear: ranks (r_0, ..., r_d) and parameters before and after, the norm before, the error."""

    ranks_before: tuple[int, ...]
    ranks: tuple[int, ...]
    parameters_before: int
    parameters: int
    norm: float
    error: float

    @classmethod
    def of(cls, before: t3.TensorTrain, after: t3.TensorTrain) -> "Approximation":
        error = distance(before, after).item()
        return cls(before.ranks, after.ranks, before.param_count, after.param_count, before.norm().item(), error)


@dataclass(frozen=True)
class ApproximationReport:
    """All linears by their paths; prints as a table."""

    linears: Mapping[str, Approximation]

    @property
    def norm(self) -> float:
        """The norm of all deltas before, without biases."""
        return math.hypot(*(linear.norm for linear in self.linears.values()))

    @property
    def error(self) -> float:
        """The norm of all differences."""
        return math.hypot(*(linear.error for linear in self.linears.values()))

    @property
    def relative_error(self) -> float:
        """``error / norm``; 0 if the norm is 0."""
        return _share(self.error, self.norm)

    def __str__(self) -> str:
        header = ["linear", "ranks before", "ranks", "parameters before", "parameters", "norm", "error", "error / norm"]
        rows = [
            [path, _chain(a.ranks_before), _chain(a.ranks), *_cells(a.parameters_before, a.parameters, a.norm, a.error)]
            for path, a in self.linears.items()
        ]
        before = sum(a.parameters_before for a in self.linears.values())
        after = sum(a.parameters for a in self.linears.values())
        rows.append(["total", "", "", *_cells(before, after, self.norm, self.error)])
        return render_table("Approximation of deltas", header, rows)


def _chain(ranks: tuple[int, ...]) -> str:
    return " ".join(map(str, ranks))


def _cells(parameters_before: int, parameters: int, norm: float, error: float) -> list[str]:
    return [f"{parameters_before:,}", f"{parameters:,}", f"{norm:.4g}", f"{error:.2e}", f"{_share(error, norm):.2e}"]


def _share(error: float, norm: float) -> float:
    return error / norm if norm else 0.0
