"""The plots of a run's page: scores by position against the baselines and by loop, and what a probe reads by loop.

Bands are 90 % bootstrap intervals over prompts. A dotted line is the trained number of loops.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.drawing import COLOURS, legend_below, legend_height, new_figure, save
from seq2seq.in_context.probe import LABELS
from seq2seq.in_context.tasks import ACCURACY, ERROR, Measure, measure_of

PLOT = "scores.png"
MARKERS = "osDv^P*X"
TALLEST = 2.0
"""Curves of baselines are cut at so many times the largest error of the run, which some exceed at few examples."""

Rows = Sequence[Mapping[str, Any]]


def draw_scores(
    path: Path, positions: Rows, loops: Rows, probe: Rows = (), at_last_point: Mapping[str, float] | None = None
) -> None:
    """Draw the panels.

    Args:
        positions: error or accuracy, low and high by predictor and point; the run comes first.
        loops: error at the last point or accuracy, low, high and whether it was trained, by loop.
        probe: R^2 by loop, see ``seq2seq.in_context.probe``; none for no panel.
        at_last_point: errors of what was measured at the last point alone, by label.
    """
    fitted = at_last_point or {}
    names = list(dict.fromkeys(row["predictor"] for row in positions))
    measure, several = measure_of(loops[0]), int(max(row["point"] for row in positions) > 1)
    labels = [*names, *fitted, "trained loops", *(LABELS.values() if probe else [])]
    figure = new_figure(3.4 + legend_height(labels))
    axes = figure.subplots(1, 1 + several + bool(probe), squeeze=False)[0]
    by_name = {name: [row for row in positions if row["predictor"] == name] for name in names}
    drawn = draw_positions(axes[0], by_name, fitted) if several else {}
    drawn |= draw_loops(axes[several], loops, {} if several else by_name)
    at = f", point {max(row['point'] for row in positions)}" if measure is ERROR else ""
    axes[several].set_title(f"{measure.key} by loop{at}", fontsize=10)
    if probe:
        drawn |= draw_probe(axes[-1], probe, trained_loops(loops))
    for each in axes:
        each.tick_params(labelsize=8)
        each.xaxis.get_major_locator().set_params(integer=True)
        each.grid(alpha=0.25)
    legend_below(figure, drawn)
    save(figure, path)


def draw_positions(axes: Any, by_name: Mapping[str, Rows], fitted: Mapping[str, float]) -> dict[str, Any]:
    """Error by position with bands, and a marker for each error at the last point; the first name is the run."""
    drawn, measure = {}, measure_of(next(iter(by_name.values()))[0])
    for index, (name, rows) in enumerate(by_name.items()):
        points, error, low, high = columns(rows, "point", measure.key, "low", "high")
        colour = COLOURS[index % len(COLOURS)]
        style = {"linewidth": 2.2, "zorder": 3} if index == 0 else {"linewidth": 1.1, "linestyle": "--"}
        (drawn[name],) = axes.plot(points, error, color=colour, **style)
        axes.fill_between(points, low, high, color=colour, alpha=0.1 if index else 0.25, linewidth=0)
    last = max(row["point"] for rows in by_name.values() for row in rows)
    for index, (name, value) in enumerate(fitted.items()):
        colour, marker = COLOURS[(len(by_name) + index) % len(COLOURS)], MARKERS[index % len(MARKERS)]
        (drawn[name],) = axes.plot([last], [value], marker, color=colour, markersize=5, clip_on=False, zorder=4)
    highest = max(row["high"] for row in next(iter(by_name.values())))
    axes.set(xlabel="point" if measure is ERROR else "digit of the answer", ylabel=measure.axis)
    if measure is ERROR:
        axes.set_ylim(0, TALLEST * highest if np.isfinite(highest) and highest > 0 else None)
    else:
        axes.set_ylim(0, 1.05)
    axes.set_title(f"{measure.key} by position", fontsize=10)
    return drawn


def draw_loops(axes: Any, rows: Rows, constant: Mapping[str, Rows]) -> dict[str, Any]:
    """The score by loop with its band, a line at the trained number of loops, and baselines, which have no loops."""
    measure, drawn = measure_of(rows[0]), {}
    loop, score, low, high = columns(rows, "loop", measure.key, "low", "high")
    for index, (name, (row, *_)) in enumerate(constant.items()):
        colour = COLOURS[index % len(COLOURS)]
        drawn[name] = (
            axes.axhline(row[measure.key], color=colour, linewidth=1.1, linestyle="--")
            if index
            else axes.plot([], [], color=colour, linewidth=2.2)[0]
        )
    axes.plot(loop, score, color=COLOURS[0], linewidth=2.2, marker="o", markersize=3)
    axes.fill_between(loop, low, high, color=COLOURS[0], alpha=0.18, linewidth=0)
    axes.set(xlabel="loop", ylabel=measure.axis)
    scale_scores(axes, score, measure)
    line = axes.axvline(trained_loops(rows), color="#555555", linestyle=":", linewidth=1.2)
    return drawn | {"trained loops": line}


def draw_probe(axes: Any, rows: Rows, trained: int) -> dict[str, Any]:
    """R^2 by loop of each target."""
    drawn = {}
    for (name, label), line in zip(LABELS.items(), ("-", (0, (4, 1.5))), strict=True):
        loop, values = columns(rows, "loop", name)
        (drawn[label],) = axes.plot(loop, values, color="#111111", linewidth=1.5, linestyle=line)
    axes.axvline(trained, color="#555555", linestyle=":", linewidth=1.2)
    axes.set(xlabel="loop", ylabel="$R^2$ of a linear read-out")
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1.02)
    axes.set_title("read from the state", fontsize=10)
    return drawn


def scale_scores(axes: Any, values: np.ndarray, measure: Measure) -> None:
    """Show accuracies from 0 to 1, errors as ``scale_errors`` does."""
    if measure is ACCURACY:
        axes.set_ylim(0, 1.05)
    else:
        scale_errors(axes, values)


def scale_errors(axes: Any, values: np.ndarray) -> None:
    """Make the axis of errors or losses logarithmic where they differ by a decade, else linear from 0."""
    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive) and positive.max() > 10 * positive.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.1 * positive.max() if len(positive) else None)


def trained_loops(rows: Rows) -> int:
    """b, of errors by loop."""
    return sum(row["trained"] for row in rows)


def columns(rows: Rows, *names: str) -> list[np.ndarray]:
    """Columns of rows as numbers; NaN for null."""
    return [np.array([row[name] for row in rows], dtype=float) for name in names]
