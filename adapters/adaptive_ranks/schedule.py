"""RankSchedule: at which steps of a training the ranks change, and how.

n changes, after the steps   start, start + every, ...  up to end

rel_tol    at each the same
budget     at change i = 0 .. n-1 the numbers fall by an equal part to what remains,

               N' = budget + (N - budget) (n - 1 - i) / (n - i)        N the numbers of the cores before it

           so that the last one leaves ``budget``, and a run that resumes needs to know no more than its cores
grow       at each, after the cut; where there is a cut not at the last
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
    """The steps above, and the arguments of ``adapt_ranks``.

    Args:
        start: the first change is after so many steps.
        every: the steps from one to the next.
        end: none comes after so many.
        rel_tol, budget, min_rank, max_rank, grow: as for ``adapt_ranks``.

    Raises:
        ConfigurationError: a number is out of range, or two exclude each other.
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
                _refuse(key, "counts steps from 1 on", getattr(self, key), "raise it")
        if self.end < self.start:
            _refuse("end", "is no step before start", f"{self.end} with start {self.start}", "raise it")
        check_arguments(self.rel_tol, self.budget, self.min_rank, self.max_rank, self.grow)

    @property
    def steps(self) -> range:
        """The steps after which ranks change."""
        return range(self.start, self.end + 1, self.every)

    def check_steps(self, count: int) -> None:
        """Refuse a training of too few steps to come to the last change.

        Raises:
            ConfigurationError: the last change is after more than ``count`` steps.
        """
        if self.steps[-1] > count:
            raise ConfigurationError(
                f"A rank_schedule ends within the steps of a run (max_steps); got a last change after "
                f"{self.steps[-1]} of {count} steps: let it end earlier, or train longer."
            )

    def check_budget(self, model: nn.Module) -> None:
        """Refuse a budget that the trains of this model cannot come to.

        Raises:
            ConfigurationError: they have more numbers at the least ranks, or the model has no such trains.
        """
        if self.budget is not None:
            check_budget(adaptable_trains(uncompiled(model))[0], self.budget, self.min_rank)

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, step: int) -> RankReport | None:
        """Change the ranks where it is time after so many steps; what was done, or None.

        Raises:
            ConfigurationError, ValueError: as for ``adapt_ranks``.
        """
        if step not in self.steps:
            return None
        left = len(self.steps) - 1 - self.steps.index(step)
        budget = self.budget
        if budget is not None:
            self.check_budget(model)
            numbers = parameter_count(adaptable_trains(uncompiled(model))[0])
            budget += max(0, numbers - budget) * left // (left + 1)
        cuts = self.rel_tol is not None or budget is not None
        grow = 0 if cuts and not left else self.grow
        return adapt_ranks(model, optimizer, self.rel_tol, budget, self.min_rank, self.max_rank, grow)

    @classmethod
    def from_dict(cls, values: Any) -> "RankSchedule":
        """A schedule from its JSON form.

        Raises:
            ConfigurationError: a key is unknown or missing, or a value does not fit.
        """
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"Key 'rank_schedule' is an object; got {values!r}: write for example "
                '{"start": 50, "every": 50, "end": 200, "rel_tol": 0.1}.'
            )
        return from_json(cls, values, WHERE)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; ``from_dict`` of it gives an equal schedule."""
        return asdict(self)
