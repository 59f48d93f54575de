"""Early stopping: training ends after as many evaluations without improvement as the key ``early_stopping_patience``.

    "early_stopping_patience": 3, "early_stopping_threshold": 0.001

An evaluation improves if ``metric_for_best_model`` beats the best value so far by more than the threshold. The count is
made of the logged values, which a checkpoint holds, so a resumed run stops where an uninterrupted one does.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from adapters.validation import refuse
from seq2seq.experiment import Experiment, Extra
from third_party.trainers import last_complete_checkpoint


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Extra):
    """Stops training when the validation metric no longer improves.

    Args:
        early_stopping_patience: evaluations without improvement after which training ends; None for no early stopping.
        early_stopping_threshold: the least improvement that counts, in units of the metric; None for any.
    """

    changes_training: ClassVar[bool] = True

    early_stopping_patience: int | None = None
    early_stopping_threshold: float | None = None

    def check(self, experiment: Experiment) -> None:
        patience, threshold, training = self.early_stopping_patience, self.early_stopping_threshold, experiment.training
        if patience is None:
            if threshold is not None:
                fix = "set early_stopping_patience too"
                refuse(
                    "early_stopping_threshold", "needs early_stopping_patience", f"{threshold} alone", fix, "the run"
                )
            return
        if patience < 1:
            refuse("early_stopping_patience", "must be at least 1", patience, "3 is typical", "the run")
        if threshold is not None and not 0 <= threshold < math.inf:
            refuse("early_stopping_threshold", "must be at least 0", threshold, "leave it out for 0", "the run")
        if training["do_train"] and training["eval_strategy"] == "no":
            fix = "set eval_strategy to 'steps' or 'epoch', with rows of the validation split"
            refuse("early_stopping_patience", "needs evaluation", "eval_strategy 'no'", fix, "the run")
        if training["metric_for_best_model"] is None:
            fix = "leave metric_for_best_model out, or name a metric"
            refuse("early_stopping_patience", "needs a metric", "metric_for_best_model null", fix, "the run")
        if any(getattr(extra, "rank_schedule", None) is not None for extra in experiment.extras):
            rule = "excludes a rank_schedule, which discards the best checkpoint when ranks change"
            refuse("early_stopping_patience", rule, "both", "leave one of them out", "the run")

    def callbacks(self, directory: Path | None) -> list[TrainerCallback]:
        if self.early_stopping_patience is None:
            return []
        checkpoints = None if directory is None else directory / "checkpoints"
        return [EarlyStoppingCallback(self.early_stopping_patience, self.early_stopping_threshold or 0.0, checkpoints)]


class EarlyStoppingCallback(TrainerCallback):
    """Ends training after ``patience`` evaluations in a row that improve by at most ``threshold``.

    Args:
        patience: number of evaluations.
        threshold: in units of the metric.
        checkpoints: the folder from which a run may resume; None for none.
    """

    def __init__(self, patience: int, threshold: float, checkpoints: Path | None) -> None:
        self.patience = patience
        self.threshold = threshold
        self.checkpoints = checkpoints

    def on_init_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Let a run that was killed after its last checkpoint, but had stopped, take no further step."""
        found = None if self.checkpoints is None else last_complete_checkpoint(self.checkpoints)
        if found is not None:
            saved = json.loads((found / "trainer_state.json").read_text())
            if self._has_stopped(args, saved["log_history"]):
                args.max_steps = saved["global_step"]

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_training_stop |= self._has_stopped(args, state.log_history)

    def _has_stopped(self, args: TrainingArguments, history: Iterable[Mapping[str, Any]]) -> bool:
        name = "eval_" + args.metric_for_best_model.removeprefix("eval_")
        values = [entry[name] for entry in history if name in entry]
        sign = 1 if args.greater_is_better else -1
        return evaluations_without_improvement([sign * value for value in values], self.threshold) >= self.patience


def evaluations_without_improvement(values: Iterable[float], threshold: float) -> int:
    """The number of last values of which none is larger than the best one before it by more than ``threshold``."""
    best, count = -math.inf, 0
    for value in values:
        count = 0 if value - best > threshold else count + 1  # NaN improves nothing
        best = max(best, value) if not math.isnan(value) else best
    return count
