"""Ranks that change while the model trains: the key ``rank_schedule``, ranks.json with their history, ranks.png."""

import itertools
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from adapters import ConfigurationError, RankSchedule
from adapters.adaptive_ranks.trains import fixed_ranks_reason
from adapters.base.sublayers import layer_of
from adapters.tables import render_table
from adapters.tensor_train.fields import TensorTrainFields
from adapters.validation import refuse
from seq2seq.drawing import COLOURS, legend_below, new_figure, save
from seq2seq.experiment import Experiment, Extra
from seq2seq.run_folder import read_earlier
from seq2seq.workload import Prepared
from third_party.trainers import RankScheduleCallback

FILE, PLOT = "ranks.json", "ranks.png"
LINES = ("-", "--", ":", "-.")

Entry = dict[str, Any]
"""The state after one change, see ``third_party.trainers.rank_schedule``; "numbers" counts parameters of the cores."""


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
        reasons = [(c.kind, fixed_ranks_reason(c)) for c in configs if isinstance(c, TensorTrainFields)]
        if not any(reason is None for _, reason in reasons):
            given = "; ".join(f"{kind}: {reason}" for kind, reason in reasons)
            raise ConfigurationError(
                "Key 'rank_schedule' needs a tt_lora, tt_single or tt_adapter of the format tensor_train whose cores "
                f"are not shared and all train; got {given or ', '.join(config.kind for config in configs)}: change "
                "the adapter, or leave the schedule out."
            )
        rates = experiment.run.learning_rate_multipliers
        if rates is not None and rates.smallest_core != 1:
            rule = "needs learning rates that do not depend on the sizes of cores, which it changes"
            given, fix = f"learning_rate_multipliers with smallest_core {rates.smallest_core:g}", "leave it out"
            refuse("rank_schedule", rule, given, fix, "the run")
        steps = experiment.training.get("max_steps", -1)
        if steps > 0:
            self.rank_schedule.check_steps(steps)
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if experiment.training["do_train"] and processes > 1:
            raise ConfigurationError(
                "Key 'rank_schedule' needs a run of one process, because DDP reserves buffers for fixed "
                f"shapes; got {processes} processes: start the run without torchrun."
            )

    def check_prepared(self, experiment: Experiment, prepared: Prepared) -> None:
        """Refuse a budget that the model's tensor trains cannot meet."""
        if self.rank_schedule is not None and experiment.training["do_train"]:
            self.rank_schedule.check_budget(prepared.model)

    def callbacks(self, directory: Path | None) -> list[TrainerCallback]:
        if self.rank_schedule is None:
            return []
        return [RankScheduleCallback(self.rank_schedule, None if directory is None else directory / FILE)]

    def after(
        self, experiment: Experiment, prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        history = self._history(directory)
        return {"ranks": history[-1] if history else None}

    def table_rows(self, experiment: Experiment, result: Mapping[str, Any]) -> list[list[str]]:
        return [["final ranks", " ".join(rank_cells(result["ranks"])[1:])]] if result.get("ranks") else []

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        history = self._history(directory)
        if not history:
            return ""
        draw_ranks(directory / PLOT, history)
        return f"![ranks by step]({PLOT})\n\n```\n{rank_table(history)}\n```\n\n"

    def _history(self, directory: Path) -> list[dict[str, Any]]:
        return read_earlier(directory / FILE, list)


def all_ranks(entry: Entry) -> list[int]:
    """All ranks of all tensor trains after one change."""
    return [rank for places in entry["ranks"].values() for ranks in places.values() for rank in ranks]


def rank_cells(entry: Entry) -> list[str]:
    """Step, mean rank, smallest and largest rank, and the parameters of the cores, in words."""
    ranks = all_ranks(entry)
    return [
        f"{entry['step']}",
        f"mean {fmean(ranks):.2f},",
        f"{min(ranks)} to {max(ranks)},",
        f"{entry['numbers']:,} parameters",
    ]


def rank_table(history: Sequence[Entry]) -> str:
    """The state after each change, and the first and final ranks (r_1, ..., r_{d-1}) of each tensor train."""
    steps = []
    for entry in history:
        ranks = all_ranks(entry)
        cells = [entry["step"], f"{entry['numbers']:,}", f"{fmean(ranks):.2f}", min(ranks), max(ranks)]
        steps.append([*map(str, cells), f"{entry['error']:.1e}"])
    first, last = history[0]["ranks"], history[-1]["ranks"]
    trains = [
        [name, path, _list(ranks), _list(last[name][path])]
        for name, places in first.items()
        for path, ranks in places.items()
    ]
    header = ["after step", "parameters", "mean rank", "smallest", "largest", "relative error"]
    by_train = render_table("Ranks by tensor train", ["adapter", "module", "first", "final"], trains)
    return f"{render_table('Ranks by step', header, steps)}\n\n{by_train}"


def draw_ranks(path: Path, history: Sequence[Entry]) -> None:
    """The mean rank by step, a line for each adapter, stack and linear; and the parameter count."""
    lines: dict[str, list[list[int]]] = defaultdict(list)
    for entry in history:
        of_kind: dict[str, list[int]] = defaultdict(list)
        for name, places in entry["ranks"].items():
            for place, ranks in places.items():
                label = f"{name} {layer_of(place).partition(' ')[0]} {place.rpartition('.')[2]}"
                of_kind[label] += ranks
        for label, ranks in of_kind.items():
            lines[label].append(ranks)
    steps = [entry["step"] for entry in history]
    figure = new_figure(3.4 + 0.17 * (len(lines) // 3 + 1))
    left, right = figure.subplots(1, 2)
    drawn = {}
    styles = itertools.product(LINES, COLOURS)
    for (label, ranks), (line, colour) in zip(lines.items(), itertools.cycle(styles), strict=False):
        style = {"color": colour, "linestyle": line}
        (drawn[label],) = left.step(steps, [fmean(of_step) for of_step in ranks], where="post", marker="o", **style)
        low, high = [min(of_step) for of_step in ranks], [max(of_step) for of_step in ranks]
        left.fill_between(steps, low, high, step="post", color=style["color"], alpha=0.12, linewidth=0)
    left.set(xlabel="step", ylabel="rank: mean, smallest to largest", ylim=(0, None))
    right.step(steps, [entry["numbers"] for entry in history], where="post", marker="o", color="#777777")
    right.set(xlabel="step", ylabel="parameters of the cores", ylim=(0, None))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
    legend_below(figure, drawn)
    save(figure, path)


def _list(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
