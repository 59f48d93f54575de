"""Checkpoints that hold adapter tensors only, in the format of ``adapters.save``, and the newest one to resume from."""

import json
import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import adapters
from adapters.saved.folder import CONFIG_NAME, read_config, read_tensors
from adapters.sharded import is_sharded
from third_party.trainers.rank_schedule import RankScheduleCallback

logger = logging.getLogger(__name__)


PROCESSES_NAME = "processes.txt"
"""The file of a checkpoint that has the number of its processes, if there are several: each has a random state."""


class AdapterCheckpointsMixin:
    """Mixin over transformers' ``Trainer``: saving, resuming and the best model use adapter folders.

    A checkpoint loads even if a ``RankScheduleCallback`` has changed the ranks since it was written.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save or is_sharded(self.model):
            adapters.save(self.model, output_dir or self.args.output_dir, model_card=False)

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until every process has written its own: trainer_state.json, written next, is then the last file."""
        if self.args.should_save and self.args.world_size > 1:
            (Path(output_dir) / PROCESSES_NAME).write_text(str(self.args.world_size))
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Take no further step in a run that was stopped after its last checkpoint; transformers would take one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_adapters(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_adapters(self.state.best_model_checkpoint)

    def _load_adapters(self, directory: str) -> None:
        if any(isinstance(callback, RankScheduleCallback) for callback in self.callback_handler.callbacks):
            adapters.fit_ranks(self.model, directory)
        adapters.load(self.model, directory)


def last_complete_checkpoint(directory: str | Path) -> Path | None:
    """The newest checkpoint whose files can all be read, or None; a warning names those that are passed over.

    A killed run may leave a newer, partial checkpoint, and a full disk one with an empty file.

    Raises:
        CheckpointError: no checkpoint can be read, and one of them was complete: starting again would lose its steps.
    """
    found = [path for path in Path(directory).glob("checkpoint-*") if path.is_dir() and _step(path) >= 0]
    found.sort(key=_step, reverse=True)
    for path in found:
        if (problem := unreadable_file(path)) is None:
            return path
        logger.warning("The checkpoint %s is passed over: %s cannot be read.", path, problem)
    if any(_is_state(path / "trainer_state.json") for path in found):
        raise adapters.CheckpointError(
            f"A run resumes from a checkpoint whose files can all be read; got {directory}, in which none is left: "
            "delete that folder to train from the start."
        )
    return None


def unreadable_file(checkpoint: Path) -> str | None:
    """The name of the first file of a checkpoint that is missing or damaged; None if all can be read.

    Adapter tensors, the state of optimizer and scheduler, the random state of each process, trainer_state.json.
    """
    if not _is_state(checkpoint / "trainer_state.json"):
        return "trainer_state.json"
    try:
        read_config(checkpoint)
        read_tensors(checkpoint)
    except adapters.CheckpointError:
        return f"{CONFIG_NAME} or {adapters.WEIGHTS_NAME}"
    for name, keys in (("optimizer.pt", {"state", "param_groups"}), ("scheduler.pt", {"last_epoch"})):
        if not (_is_archive(checkpoint / name) and _has_keys(checkpoint / name, keys)):
            return name
    return next((name for name in _random_states(checkpoint) if not _is_archive(checkpoint / name)), None)


def _random_states(checkpoint: Path) -> list[str]:
    """The names of the files with the random state of each process, as transformers has them."""
    try:
        count = int((checkpoint / PROCESSES_NAME).read_text())
    except (OSError, ValueError):  # of one process, or of an earlier version
        return sorted(path.name for path in checkpoint.glob("rng_state*.pth")) or ["rng_state.pth"]
    return [f"rng_state_{process}.pth" for process in range(count)]


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _is_state(path: Path) -> bool:
    """Whether a trainer_state.json, the last file of a checkpoint to be written, is complete."""
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(state, dict) and {"global_step", "max_steps", "log_history"} <= state.keys()


def _has_keys(path: Path, keys: set[str]) -> bool:
    """Whether a file of torch.save is a dictionary with these keys."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError):
        return False
    return isinstance(state, dict) and keys <= state.keys()


def _is_archive(path: Path) -> bool:
    """Whether a file of torch.save is complete: a zip archive whose checksums are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
