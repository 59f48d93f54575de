"""Tracking a run: wandb if requested, otherwise nothing, behind the same methods.

    tracker.log({"train/loss": 0.41}, step=20)
    tracker.log_image("curve", path)
    tracker.log_table("memory_by_layer", ["layer", "bytes"], [["encoder 0", 4096]])
    tracker.finish()

wandb is imported only when it is used. WANDB_MODE=offline needs neither network nor account.
"""

import importlib.util
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerState

from adapters import ConfigurationError
from seq2seq.experiment import Experiment, Extra
from seq2seq.run_folder import RunFolder

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """What a run reports to as it progresses."""

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        """Log values, at a training step if ``step`` is given."""

    def log_image(self, name: str, path: Path) -> None:
        """Log a picture."""

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table."""

    def finish(self) -> None:
        """Close the record."""


class NullTracker:
    """Logs nothing."""

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        pass

    def log_image(self, name: str, path: Path) -> None:
        pass

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        pass

    def finish(self) -> None:
        pass


class WandbTracker:
    """One wandb run, whose config holds the main settings of the experiment."""

    def __init__(self, experiment: Experiment, directory: Path) -> None:
        import wandb

        run = experiment.run
        self.run = wandb.init(
            project=run.wandb_project, name=run.experiment_name, dir=str(directory), config=main_settings(experiment)
        )

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.run.log(values, step=step)

    def log_image(self, name: str, path: Path) -> None:
        import wandb

        self.run.log({name: wandb.Image(str(path))})

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self.run.log({name: wandb.Table(columns=list(header), data=[list(row) for row in rows])})

    def finish(self) -> None:
        self.run.finish()


def make_tracker(experiment: Experiment, directory: Path, main_process: bool) -> Tracker:
    """The tracker that the configuration asks for; only the main process has one."""
    if experiment.run.log_to_wandb and main_process:
        return WandbTracker(experiment, directory)
    return NullTracker()


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
    if os.environ.get("WANDB_MODE") not in ("offline", "disabled") and not wandb.login(prompt=False):
        raise ConfigurationError(
            "Key 'log_to_wandb' needs a wandb account; got none that is logged in: run `wandb login`, or set "
            "WANDB_MODE=offline."
        )


def main_settings(experiment: Experiment) -> dict[str, Any]:
    """Settings that a reader of the record filters by."""
    training = experiment.training
    names = (
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_steps",
        "seed",
    )
    return {
        "task": experiment.workload.task_label,
        "model": experiment.workload.model_label,
        "adapter": [config.to_dict() for config in experiment.adapters],
        **{name: training[name] for name in names if name in training},
    }


class TrackingCallback(TrainerCallback):
    """Passes the trainer's values on to a tracker and to the log."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        values = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        renamed = {
            f"validation/{name[5:]}" if name.startswith("eval_") else f"train/{name}": value
            for name, value in values.items()
        }
        self.tracker.log(renamed, step=state.global_step)
        logger.info("step %d: %s", state.global_step, json.dumps(renamed))
