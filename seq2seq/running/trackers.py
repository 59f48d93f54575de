"""Where a run can be followed while it trains: wandb and tensorboard, with the same names, behind the same methods.

    tracker.start(step=0)
    tracker.log({"train/loss": 0.41, "costs/step_seconds_median": 0.2}, step=20)
    tracker.log({"test/accuracy": 0.8})                      at the last step
    tracker.log_image("curve", path)
    tracker.log_table("memory_by_layer", ["layer", "bytes"], [["encoder 0", 4096]])
    tracker.finish()

Both libraries are imported only when they are used. WANDB_MODE=offline needs neither network nor account.
"""

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from adapters.tables import render_table
from seq2seq.experiment import Experiment
from seq2seq.run_folder import RunFolder, read_json, write_json

logger = logging.getLogger(__name__)

LONGEST_TAG = 64
"""Characters of a tag of wandb's."""


class Tracker(Protocol):
    """What a run reports to as it progresses."""

    def start(self, step: int) -> None:
        """Begin to train after ``step``, which is 0 unless the run resumes."""

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log values at a training step; at the last one if ``step`` is None."""

    def log_image(self, name: str, path: Path) -> None:
        """Log a picture."""

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table."""

    def finish(self) -> None:
        """Close the record."""


class Trackers:
    """Several trackers as one; nothing is tracked if there are none."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self.trackers = tuple(trackers)

    def start(self, step: int) -> None:
        for tracker in self.trackers:
            tracker.start(step)

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        for tracker in self.trackers:
            tracker.log(values, step)

    def log_image(self, name: str, path: Path) -> None:
        for tracker in self.trackers:
            tracker.log_image(name, path)

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for tracker in self.trackers:
            tracker.log_table(name, header, rows)

    def finish(self) -> None:
        for tracker in self.trackers:
            tracker.finish()


@dataclass(frozen=True)
class WandbRun:
    """What wandb knows a run by, stored in its folder: a resumed run continues its curves, a new one begins others.

    Args:
        id: unique in the project.
        name: the experiment's name; of a cell, <sweep>/<cell>.
        group: the sweep that the run is a cell of; None outside a sweep, where wandb reads WANDB_RUN_GROUP.
        tags: the task, the kinds of adapters, and of a cell what the sweep varies: "rank-4", "seed-0".
    """

    id: str
    name: str
    group: str | None
    tags: tuple[str, ...]

    @classmethod
    def of(cls, experiment: Experiment, folder: RunFolder) -> "WandbRun":
        """The identity in the run's folder, or a new one, which is written there."""
        if folder.wandb.is_file():
            try:
                stored = read_json(folder.wandb)
                return cls(**{**stored, "tags": tuple(stored["tags"])})
            except (OSError, ValueError, TypeError, KeyError):
                logger.warning("%s cannot be read: wandb continues this run as a new one.", folder.wandb)
        name, sweep = experiment.run.experiment_name, experiment.sweep
        tags = [experiment.workload.task_label, *(config.kind for config in experiment.adapters)]
        tags += name.split("__") if sweep else []
        tags = tuple(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags))
        run = cls(uuid.uuid4().hex[:16], f"{sweep}/{name}" if sweep else name, sweep, tags)
        write_json(folder.wandb, asdict(run))
        return run


class WandbTracker:
    """A run of wandb, whose x axis is the training step; ``settings`` become its config."""

    def __init__(self, experiment: Experiment, folder: RunFolder, settings: dict[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=experiment.run.wandb_project,
            dir=str(folder.directory),
            config=settings,
            resume="allow",
            **asdict(WandbRun.of(experiment, folder)),
        )
        self.run.define_metric("*", step_metric="step", step_sync=True)

    def start(self, step: int) -> None:
        pass  # steps that a resumed run repeats have the same x

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.run.log({**values} if step is None else {**values, "step": step})

    def log_image(self, name: str, path: Path) -> None:
        import wandb

        self.run.log({name: wandb.Image(str(path))})

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self.run.log({name: wandb.Table(columns=list(header), data=[list(row) for row in rows])})

    def finish(self) -> None:
        self.run.finish()


class TensorboardTracker:
    """Event files in the run's folder; ``settings`` become a text.

    Args:
        directory: where the event files go.
        step: the last step of an earlier part of the run.
    """

    def __init__(self, directory: Path, settings: dict[str, Any], step: int = 0) -> None:
        self.directory = directory
        self.settings = settings
        self.step = step
        self.writer = None

    def start(self, step: int) -> None:
        self._open(purge_step=step + 1)  # later ones of an interrupted run are logged again
        self.step = step

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.step = self.step if step is None else step
        for name, value in values.items():
            self._open().add_scalar(name, value, self.step)

    def log_image(self, name: str, path: Path) -> None:
        self._open().add_image(name, np.asarray(Image.open(path).convert("RGB")), self.step, dataformats="HWC")

    def log_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
        table = render_table(name, header, cells)
        self._open().add_text(name, "\n".join(f"    {line}" for line in table.splitlines()), self.step)

    def finish(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _open(self, purge_step: int | None = None) -> Any:
        """The writer, opened on first use: tensorboard drops what earlier files have from ``purge_step`` on."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.directory), purge_step=purge_step)
            self.writer.add_text("settings", f"    {json.dumps(self.settings)}", self.step)
        return self.writer
