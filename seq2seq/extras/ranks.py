"""Ranks that change while the model trains: the key ``rank_schedule``, ranks.json with their history, ranks.png."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from adapters import ConfigurationError, RankSchedule
from adapters.adaptive_ranks.trains import why_ranks_are_fixed
from adapters.tensor_train.fields import TensorTrainFields
from seq2seq.experiment import Experiment, Extra
from seq2seq.report.ranks import draw_ranks, rank_cells, rank_table
from seq2seq.run_folder import read_json
from seq2seq.workload import Prepared
from third_party.trainers import RankScheduleCallback

FILE, PLOT = "ranks.json", "ranks.png"


@dataclass(frozen=True, kw_only=True)
class Ranks(Extra):
    """The ranks of tensor trains, changed at the steps of a schedule.

    Args:
        rank_schedule: when and how, see ``adapters.RankSchedule``; None for never.
    """

    changes_training = True
    pictures = (PLOT,)

    rank_schedule: RankSchedule | None = None

    def check(self, experiment: Experiment) -> None:
        """Refuse a schedule that no adapter can follow, that ends after the run, or that several processes share."""
        if self.rank_schedule is None:
            return
        configs = experiment.adapters
        trains = {c.kind: why_ranks_are_fixed(c) for c in configs if isinstance(c, TensorTrainFields)}
        if not any(reason is None for reason in trains.values()):
            given = "; ".join(f"{kind}: {reason}" for kind, reason in trains.items())
            raise ConfigurationError(
                "Key 'rank_schedule' needs a tt_lora, tt_single or tt_adapter of the format tensor_train whose cores "
                f"are its own and all train; got {given or ', '.join(config.kind for config in configs)}: change the "
                "adapter, or leave the schedule out."
            )
        steps = experiment.training.get("max_steps", -1)
        if steps > 0:
            self.rank_schedule.check_steps(steps)
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if experiment.training["do_train"] and processes > 1:
            raise ConfigurationError(
                "Key 'rank_schedule' belongs to a run of one process, because DDP reserves buffers for cores of one "
                f"shape; got {processes} processes: start the run without torchrun."
            )

    def callbacks(self, directory: Path | None) -> list[TrainerCallback]:
        if self.rank_schedule is None:
            return []
        return [RankScheduleCallback(self.rank_schedule, None if directory is None else directory / FILE)]

    def after(
        self, experiment: Experiment, prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        history = self._history(directory)
        return {"ranks": history[-1] if history else None}

    def rows(self, experiment: Experiment, result: Mapping[str, Any]) -> list[list[str]]:
        return [["final ranks", " ".join(rank_cells(result["ranks"])[1:])]] if result.get("ranks") else []

    def section(self, directory: Path, result: Mapping[str, Any]) -> str:
        history = self._history(directory)
        if not history:
            return ""
        draw_ranks(directory / PLOT, history)
        return f"![ranks by step]({PLOT})\n\n```\n{rank_table(history)}\n```\n\n"

    def _history(self, directory: Path) -> list[dict[str, Any]]:
        path = directory / FILE
        return read_json(path) if path.is_file() else []
