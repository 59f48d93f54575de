"""The ranks of one run's tensor trains by step, from the entries of ranks.json.

    rank_table    for README.md: a row for each change, and the first and final ranks of each tensor train
    draw_ranks    ranks.png: mean, smallest and largest rank of each kind of linear by step, and the parameter count

The key "numbers" of an entry is the parameter count of all cores.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from adapters.base.sublayers import layer_of
from adapters.tables import render_table
from seq2seq.report.plots import legend_below, new_figure, save, styles_of

Entry = dict[str, Any]


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
    for label, style in styles_of(list(lines)).items():
        ranks = lines[label]
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
