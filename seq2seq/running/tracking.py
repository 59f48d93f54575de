"""Tracking a run: which trackers the configuration asks for, and what they are told.

    train/loss, train/learning_rate, ...            what the trainer logs, by step
    validation/loss, validation/<metric>            evaluations while it trains; last, that of the chosen checkpoint
    test/<metric>
    parameters/trainable_parameters                 by step, as ranks may change
    costs/step_seconds_median, costs/peak_memory_bytes, costs/tokens_per_second

The names after ``parameters/`` and ``costs/`` are those of metrics.json.
"""

import importlib.util
import json
import logging
import os
from collections.abc import Iterable
from typing import Any

from transformers import TrainerCallback, TrainerState

import adapters
from adapters import ConfigurationError
from adapters.validation import nearest_name
from seq2seq.experiment import Experiment, Extra
from seq2seq.report.collect import read_history
from seq2seq.run_folder import RunFolder
from seq2seq.running.trackers import TensorboardTracker, Tracker, Trackers, WandbTracker
from third_party.trainers.measurement import MeasurementCallback

logger = logging.getLogger(__name__)

WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
WITHOUT_ACCOUNT = ("offline", "disabled", "dryrun")


def make_tracker(experiment: Experiment, folder: RunFolder, main_process: bool) -> Trackers:
    """The trackers that the configuration asks for; only the main process has any."""
    trackers: list[Tracker] = []
    if experiment.run.log_to_wandb and main_process:
        trackers.append(WandbTracker(experiment, folder, settings_of(experiment)))
    if "tensorboard" in (experiment.training["report_to"] or []) and main_process:
        step = int(max((entry["step"] for entry in read_history(folder.history)), default=0))
        trackers.append(TensorboardTracker(folder.tensorboard, settings_of(experiment), step))
    return Trackers(trackers)


def log_report(tracker: Tracker, folder: RunFolder, result: dict[str, Any], extras: Iterable[Extra]) -> None:
    """Pass on what a run has drawn, and the tables of its extras."""
    drawn = [folder.curve, *(folder.directory / picture for extra in extras for picture in extra.pictures)]
    for picture in drawn:
        if picture.is_file():
            tracker.log_image(picture.stem, picture)
    for extra in extras:
        for name, (header, rows) in extra.tables(result).items():
            tracker.log_table(name, header, rows)


def check_tracking(experiment: Experiment) -> None:
    """Refuse a tracker that is not installed, or that needs an account and has none.

    Raises:
        ConfigurationError: about the key ``log_to_wandb`` or ``report_to``.
    """
    if "tensorboard" in (experiment.training["report_to"] or []) and importlib.util.find_spec("tensorboard") is None:
        raise ConfigurationError(
            "Key 'report_to' needs tensorboard; got an environment without it: pip install tensorboard, or write "
            "'none'."
        )
    if not experiment.run.log_to_wandb:
        return
    try:
        import wandb
    except ImportError:
        raise ConfigurationError(
            "Key 'log_to_wandb' needs wandb; got an environment without it: pip install wandb, or set it to false."
        ) from None
    try:
        wandb.Settings(project=experiment.run.wandb_project)
    except wandb.Error as error:
        raise ConfigurationError(
            f"Key 'wandb_project' must be a name that wandb allows; got {experiment.run.wandb_project!r} ({error}): "
            "choose another."
        ) from None
    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in WANDB_MODES:
        raise ConfigurationError(
            f"WANDB_MODE must be a mode of wandb's; got {mode!r}: {nearest_name(mode, WANDB_MODES)}"
        )
    if mode not in WITHOUT_ACCOUNT and not wandb.login(prompt=False):
        raise ConfigurationError(
            "Key 'log_to_wandb' needs a wandb account; got none that is logged in: run `wandb login`, or set "
            "WANDB_MODE=offline."
        )


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """The resolved configuration, and what tables call the task and the model: a reader filters by any of them."""
    labels = {"task": experiment.workload.task_label, "model": experiment.workload.model_label}
    return labels | experiment.to_dict()


class TrackingCallback(TrainerCallback):
    """Passes the trainer's values, the trainable parameters and the costs on to a tracker; the first to the log too."""

    def __init__(self, tracker: Tracker, measurement: MeasurementCallback) -> None:
        self.tracker = tracker
        self.measurement = measurement

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.tracker.start(state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        values = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        renamed = {
            f"validation/{name[5:]}" if name.startswith("eval_") else f"train/{name}": value
            for name, value in values.items()
        }
        logger.info("step %d: %s", state.global_step, json.dumps(renamed))
        if not any(name.startswith("validation/") for name in renamed):
            renamed["parameters/trainable_parameters"] = adapters.summary(kwargs["model"]).total.trainable
            costs = self.measurement.scalars()
            renamed |= {f"costs/{name}": cost for name, cost in costs.items() if cost is not None}
        self.tracker.log(renamed, step=state.global_step)
