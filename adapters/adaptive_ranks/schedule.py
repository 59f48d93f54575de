"""RankSchedule: the training steps after which ranks change, and by how much.

n changes, after the steps   start, start + every, ...  up to end

rel_tol    the same at each change
budget     change i = 0 .. n-1 leaves

               N' = budget + (N - budget) (n - 1 - i) / (n - i)        N: parameters in the cores before it

           so that parameters fall linearly to ``budget``, and a resumed run needs no state but its cores
grow       at each change, after truncation; not at the last one if there is a truncation
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from adapters.adaptive_ranks.change import adapt_ranks, check_arguments
from adapters.adaptive_ranks.choice import check_budget
from adapters.adaptive_ranks.report import RankReport
from adapters.adaptive_ranks.trains import adaptable_trains, parameter_count
from adapters.compiled import uncompiled
from adapters.validation import ConfigurationError, check_type, from_json, refuse

WHERE = "the rank_schedule"
_refuse = partial(refuse, where=WHERE)


@dataclass(frozen=True, kw_only=True)
class RankSchedule:
    """The steps of the changes, and the arguments of ``adapt_ranks``.

    Args:
        start: the step after which ranks change first.
        every: the number of steps between changes.
        end: the last step after which ranks may change.
        rel_tol, budget, min_rank, max_rank, grow: see ``adapt_ranks``.

    Raises:
        ConfigurationError: a value is out of range, or two exclude each other.
    """

    start: int
    every: int
    end: int
    rel_tol: float | None = None
    budget: int | None = None
    min_rank: int = 1
    max_rank: int | None = None
    grow: int = 0

    def __post_init__(self) -> None:
        for key in ("start", "every", "end"):
            check_type(key, getattr(self, key), int, WHERE)
        for key in ("start", "every"):
            if getattr(self, key) < 1:
                _refuse(key, "must be a positive number of steps", getattr(self, key), "raise it")
        if self.end < self.start:
            _refuse("end", "must not be before start", f"{self.end} with start {self.start}", "raise it")
        check_arguments(self.rel_tol, self.budget, self.min_rank, self.max_rank, self.grow)

    @property
    def steps(self) -> range:
        """The steps after which ranks change."""
        return range(self.start, self.end + 1, self.every)

    def check_steps(self, count: int) -> None:
        """Check that a training run of ``count`` steps includes the last change.

        Raises:
            ConfigurationError: the last change is after more than ``count`` steps.
        """
        if self.steps[-1] > count:
            raise ConfigurationError(
                f"A rank_schedule must end within the steps of a run (max_steps); got a last change after "
                f"{self.steps[-1]} of {count} steps: let it end earlier, or train longer."
            )

    def check_budget(self, model: nn.Module) -> None:
        """Check that the trains of a model can reach the budget.

        Raises:
            ConfigurationError: they have more parameters at their smallest ranks, or there are no such trains.
        """
        if self.budget is not None:
            check_budget(adaptable_trains(uncompiled(model))[0], self.budget, self.min_rank)

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, step: int) -> RankReport | None:
        """Change the ranks if the schedule has a change after this step; return its report, or None.

        Raises:
            ConfigurationError, ValueError: see ``adapt_ranks``.
        """
        if step not in self.steps:
            return None
        left = len(self.steps) - 1 - self.steps.index(step)
        budget = self.budget
        if budget is not None:
            self.check_budget(model)
            parameters = parameter_count(adaptable_trains(uncompiled(model))[0])
            budget += max(0, parameters - budget) * left // (left + 1)
        truncates = self.rel_tol is not None or budget is not None
        grow = 0 if truncates and not left else self.grow
        return adapt_ranks(model, optimizer, self.rel_tol, budget, self.min_rank, self.max_rank, grow)

    @classmethod
    def from_dict(cls, values: Any) -> "RankSchedule":
        """Return a schedule from its JSON form.

        Raises:
            ConfigurationError: a key is unknown or missing, or a value is invalid.
        """
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key 'rank_schedule' must be an object; got {values!r}: write for example "
                '{"start": 50, "every": 50, "end": 200, "rel_tol": 0.1}.'
            )
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, the inverse of ``from_dict``."""
        return asdict(self)
