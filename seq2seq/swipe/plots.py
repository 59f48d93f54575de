"""The plots of a run's page: traces on their keyboards with the true word and the candidates, and their statistics.

Half of the traces are those that the model got wrong, if there are enough.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.drawing import COLOURS, legend_below, legend_height, new_figure, save
from seq2seq.run_folder import read_json_lines
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.keys import SwipeKeys
from seq2seq.swipe.rows import Rows
from seq2seq.swipe.traces.statistics import outliers, trace_statistics

PLOT = "traces.png"
COLUMNS, LINES = 3, 2
SHOWN = 3
"""Candidates of a trace, and outliers of a measure and split."""

STATISTICS = "statistics.png"
COUNTED = 2000
"""Traces of a split whose statistics are drawn."""

BINS = 40
MEASURES = {
    "duration": "duration, s",
    "length": "length, key widths",
    "speed": "speed, key widths / s",
    "letter_error": "letters to path, key widths",
}


def draw_traces(directory: Path, keys: SwipeKeys, splits: Mapping[str, Rows]) -> bool:
    """Draw some traces of the test split, or of validation; returns whether there were predictions."""
    for split in ("test", "validation"):
        path = directory / f"predictions_{split}.jsonl"
        if path.is_file():
            predictions = read_json_lines(path)
            chosen = examples(predictions)
            figure = new_figure(2.1 * LINES)
            for axes, number in zip(figure.subplots(LINES, COLUMNS).flat, chosen, strict=False):
                row = predictions[number]
                draw_trace(axes, keys.layouts[row["layout"]], splits[split].points[number], row)
            for axes in figure.axes[len(chosen) :]:
                axes.remove()
            save(figure, directory / PLOT)
            return True
    return False


def draw_statistics(path: Path, keys: SwipeKeys, splits: Mapping[str, Rows]) -> dict[str, list[str]]:
    """Draw the distributions of the first traces of each split; returns the words of outliers by measure."""
    found = {
        split: trace_statistics(rows.traces(keys.layouts, keys.config.rate, COUNTED), keys.layouts)
        for split, rows in splits.items()
    }
    figure = new_figure(2.2 + legend_height(found))
    drawn, far = {}, {}
    for axes, (name, label) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        by_split = {split: getattr(statistics, name) for split, statistics in found.items()}
        top = max(np.nanpercentile(values, 99) for values in by_split.values())
        for (split, values), colour in zip(by_split.items(), COLOURS, strict=False):
            style = {"bins": BINS, "range": (0, top), "density": True, "histtype": "step", "color": colour}
            (drawn[split],) = axes.hist(values, **style)[2]
            far.setdefault(label, []).extend(found[split].words[n] for n in outliers(values)[:SHOWN])
        axes.set_xlabel(label, fontsize=8)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    legend_below(figure, drawn)
    save(figure, path)
    return far


def examples(predictions: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of some rows, right ones first."""
    right = [bool(row["candidates"]) and row["candidates"][0][0] == row["word"] for row in predictions]
    rights, wrongs = ([n for n, found in enumerate(right) if found is wanted] for wanted in (True, False))
    count = COLUMNS * LINES
    shown_wrongs = wrongs[: max(count // 2, count - len(rights))]
    return rights[: count - len(shown_wrongs)] + shown_wrongs


def draw_trace(axes: Any, layout: Layout, points: np.ndarray, row: Mapping[str, Any]) -> None:
    """Draw a keyboard, a trace (time, 2) that gets darker with time, and what was predicted."""
    from matplotlib.collections import LineCollection

    for letter, (x, y, width, height) in zip(layout.alphabet, layout.boxes, strict=True):
        corners = (
            x + width * np.array([-0.5, 0.5, 0.5, -0.5, -0.5]),
            y + height * np.array([-0.5, -0.5, 0.5, 0.5, -0.5]),
        )
        axes.plot(*corners, color="#d0d0d0", linewidth=0.6)
        axes.text(x, y, letter, ha="center", va="center", fontsize=6, color="#888888")
    pieces = np.stack([points[:-1], points[1:]], 1)  # (time - 1, 2, 2)
    lines = LineCollection(pieces, cmap="viridis_r", array=np.arange(len(pieces)), linewidths=1.6, capstyle="round")
    axes.add_collection(lines)
    axes.plot(*points[0], "o", color="#228833", markersize=3.5)
    words = [word for word, _ in row["candidates"][:SHOWN]]
    right = bool(words) and words[0] == row["word"]
    axes.set_title(row["word"], fontsize=9, fontweight="bold", pad=2)
    axes.set_xlabel(", ".join(words) or "no candidate", fontsize=8, color="#228833" if right else "#cc3344", labelpad=1)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.invert_yaxis()
    for side in axes.spines.values():
        side.set_visible(False)
