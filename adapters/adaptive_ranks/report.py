"""The report of a change of ranks, train by train; prints as a table."""

from dataclasses import dataclass, field
from typing import Any

from adapters.adaptive_ranks.trains import Ranks, delta_norm
from adapters.tables import render_table


@dataclass(frozen=True)
class RankChange:
    """One group of trains that share their ranks.

    Args:
        name: of its attachment.
        path: of the adapted module of the base.
        before, after: (r_1, ..., r_{d-1}).
        norm: the Frobenius norm of the delta s T before.
        error: the Frobenius norm of its change.
    """

    name: str
    path: str
    before: Ranks
    after: Ranks
    norm: float
    error: float


@dataclass(frozen=True)
class RankReport:
    """All groups, the parameters in their cores before and after, and the reason by name of unchanged attachments."""

    rows: tuple[RankChange, ...]
    parameters_before: int
    parameters_after: int
    left_alone: dict[str, str] = field(default_factory=dict)

    @property
    def has_changed(self) -> bool:
        """Whether any rank has changed."""
        return any(row.before != row.after for row in self.rows)

    @property
    def error(self) -> float:
        """The Frobenius norm of all differences over that of all deltas; 0 if all are zero."""
        norm = delta_norm([row.norm for row in self.rows])
        return delta_norm([row.error for row in self.rows]) / norm if norm else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameters_before": self.parameters_before,
            "parameters_after": self.parameters_after,
            "error": self.error,
            "rows": [{**vars(row), "before": list(row.before), "after": list(row.after)} for row in self.rows],
            "left_alone": self.left_alone,
        }

    def __str__(self) -> str:
        header = ["adapter", "at", "ranks before", "after", "norm", "error"]
        cells = [
            [row.name, row.path, str(list(row.before)), str(list(row.after)), f"{row.norm:.3g}", f"{row.error:.1e}"]
            for row in self.rows
        ]
        parts = [
            render_table("Ranks", header, cells),
            f"{self.parameters_before:,} parameters before, {self.parameters_after:,} after, "
            f"relative error {self.error:.1e}",
            *(f"Not changed: {name}, because {reason}." for name, reason in self.left_alone.items()),
        ]
        return "\n\n".join(parts)
