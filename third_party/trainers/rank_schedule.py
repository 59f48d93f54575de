"""A trainer callback that changes ranks on a schedule, and their history.

After a step of the schedule, ranks change before that step's evaluation and checkpoint. A checkpoint therefore has what
the next step starts from, optimizer state included, and a run that resumes from it continues as if it had not stopped.
Whenever ranks change, the best checkpoint so far is discarded: the model that is loaded at the end has the final ranks.

    history    [{"step": 0, "numbers": 9984, "error": 0.0, "ranks": {"tt_lora": {path: [r_1, ..., r_{d-1}]}}}, ...]
               the start and each change; "numbers" counts parameters of cores, "error" is that of
               ``adapters.RankReport``
"""

import json
import logging
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerState

from adapters.adaptive_ranks import RankSchedule
from adapters.adaptive_ranks.optimizer_state import check_state
from adapters.adaptive_ranks.trains import adaptable_trains, parameter_count, ranks_of
from adapters.saved.files import replace_file

logger = logging.getLogger(__name__)


class RankScheduleCallback(TrainerCallback):
    """Follows a schedule.

    Args:
        schedule: when and how ranks change.
        path: a JSON file for the history, which a resumed run continues; None for none.
    """

    def __init__(self, schedule: RankSchedule, path: Path | None = None) -> None:
        self.schedule = schedule
        self.path = path
        self.history: list[dict[str, Any]] = []
        self.optimizer_is_checked = False

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start or continue the history; refuse several processes, and a schedule that cannot be met.

        Raises:
            ValueError: more than one process trains.
            ConfigurationError: the run ends before the schedule, or no ranks are within its budget.
        """
        if args.world_size > 1:
            raise ValueError(
                f"A rank_schedule needs a run of one process; got {args.world_size} processes under DDP, which has "
                "reserved its buffers for fixed shapes: start the run without torchrun."
            )
        self.schedule.check_steps(state.max_steps)
        self.schedule.check_budget(kwargs["model"])
        self.optimizer_is_checked = False
        if not state.global_step:
            self.history = []
        elif self.path is not None and self.path.is_file():
            try:
                entries = json.loads(self.path.read_text())
                self.history = [entry for entry in entries if entry["step"] <= state.global_step]
            except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
                logger.warning("%s cannot be read (%r): the history of ranks starts again.", self.path, error)
        if not self.history:
            self._note(kwargs["model"], state.global_step, 0.0)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Change the ranks if the schedule says so.

        Raises:
            ConfigurationError: the optimizer has state that cannot be carried over; raised after the first step.
        """
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        if not self.optimizer_is_checked:
            layers = [layer for group in adaptable_trains(model)[0] for layer in group.layers]
            check_state(optimizer, [parameter for layer in layers for parameter in layer.cores])
            self.optimizer_is_checked = True
        report = self.schedule.step(model, optimizer, state.global_step)
        if report is None:
            return
        logger.info(
            "Ranks after step %d: %d parameters in the cores, %d before, relative error %.1e.",
            state.global_step,
            report.parameters_after,
            report.parameters_before,
            report.error,
        )
        if report.has_changed:
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        self._note(model, state.global_step, report.error)

    def _note(self, model: nn.Module, step: int, error: float) -> None:
        groups, _ = adaptable_trains(model)
        entry = {"step": step, "numbers": parameter_count(groups), "error": error, "ranks": ranks_of(groups)}
        self.history.append(entry)
        if self.path is not None:
            text = json.dumps(self.history, indent=1) + "\n"
            replace_file(self.path, lambda partial: partial.write_text(text))
