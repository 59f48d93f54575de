"""Checkpoints that hold adapter tensors only, in the format of ``adapters.save``, and the newest one to resume from."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import adapters
from third_party.trainers.rank_schedule import RankScheduleCallback


class AdapterCheckpointsMixin:
    """Mixin over transformers' ``Trainer``: saving, resuming and the best model use adapter folders.

    A checkpoint loads even if a ``RankScheduleCallback`` has changed the ranks since it was written.
    """

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            adapters.save(self.model, output_dir or self.args.output_dir, model_card=False)

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait until every process has written its own: trainer_state.json, written next, is then the last file."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_adapters(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_adapters(self.state.best_model_checkpoint)

    def _load_adapters(self, directory: str) -> None:
        if any(isinstance(callback, RankScheduleCallback) for callback in self.callback_handler.callbacks):
            adapters.fit_ranks(self.model, directory)
        adapters.load(self.model, directory)


def last_complete_checkpoint(directory: str | Path) -> Path | None:
    """The newest checkpoint that was written completely, or None; a killed run may leave a newer, partial one."""
    found = sorted(Path(directory).glob("checkpoint-*"), key=_step, reverse=True)
    return next((path for path in found if _step(path) >= 0 and _is_complete(path)), None)


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _is_complete(path: Path) -> bool:
    """trainer_state.json is the last file of a checkpoint to be written."""
    state: Any
    try:
        state = json.loads((path / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and "global_step" in state
