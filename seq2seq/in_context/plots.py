"""The plots of a run's page: error by position against the baselines, error by loop, and what a probe reads by loop.

Bands are 90 % bootstrap intervals over prompts. A dotted line is the trained number of loops.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.drawing import COLOURS, legend_below, legend_height, new_figure, save
from seq2seq.in_context.probe import LABELS

PLOT = "errors.png"
MARKERS = "osDv^P*X"
TALLEST = 2.0
"""Curves of baselines are cut at so many times the largest error of the run, which some exceed at few examples."""

Rows = Sequence[Mapping[str, Any]]


def draw_errors(
    path: Path, positions: Rows, loops: Rows, probe: Rows = (), at_last_point: Mapping[str, float] | None = None
) -> None:
    """Draw the panels.

    Args:
        positions: error, low and high by predictor and point; the run comes first.
        loops: error, low, high and whether it was trained, by loop, at the last point.
        probe: R^2 by loop, see ``seq2seq.in_context.probe``; none for no panel.
        at_last_point: errors of what was measured at the last point alone, by label.
    """
    fitted = at_last_point or {}
    names = list(dict.fromkeys(row["predictor"] for row in positions))
    labels = [*names, *fitted, "trained loops", *(LABELS.values() if probe else [])]
    figure = new_figure(3.4 + legend_height(labels))
    axes = list(figure.subplots(1, 3 if probe else 2))
    drawn = draw_positions(axes[0], {name: [r for r in positions if r["predictor"] == name] for name in names}, fitted)
    drawn |= draw_loops(axes[1], loops)
    axes[1].set_title(f"error by loop, point {max(row['point'] for row in positions)}", fontsize=10)
    if probe:
        drawn |= draw_probe(axes[2], probe, trained_loops(loops))
    for each in axes:
        each.tick_params(labelsize=8)
        each.xaxis.get_major_locator().set_params(integer=True)
        each.grid(alpha=0.25)
    legend_below(figure, drawn)
    save(figure, path)


def draw_positions(axes: Any, by_name: Mapping[str, Rows], fitted: Mapping[str, float]) -> dict[str, Any]:
    """Error by position with bands, and a marker for each error at the last point; the first name is the run."""
    drawn = {}
    for index, (name, rows) in enumerate(by_name.items()):
        points, error, low, high = columns(rows, "point", "error", "low", "high")
        colour = COLOURS[index % len(COLOURS)]
        style = {"linewidth": 2.2, "zorder": 3} if index == 0 else {"linewidth": 1.1, "linestyle": "--"}
        (drawn[name],) = axes.plot(points, error, color=colour, **style)
        axes.fill_between(points, low, high, color=colour, alpha=0.1 if index else 0.25, linewidth=0)
    last = max(row["point"] for rows in by_name.values() for row in rows)
    for index, (name, value) in enumerate(fitted.items()):
        colour, marker = COLOURS[(len(by_name) + index) % len(COLOURS)], MARKERS[index % len(MARKERS)]
        (drawn[name],) = axes.plot([last], [value], marker, color=colour, markersize=5, clip_on=False, zorder=4)
    highest = max(row["high"] for row in next(iter(by_name.values())))
    axes.set(xlabel="point", ylabel="squared error / dims")
    axes.set_ylim(0, TALLEST * highest if np.isfinite(highest) and highest > 0 else None)
    axes.set_title("error by position", fontsize=10)
    return drawn


def draw_loops(axes: Any, rows: Rows) -> dict[str, Any]:
    """Error by loop with its band, and a line at the trained number of loops."""
    loop, error, low, high = columns(rows, "loop", "error", "low", "high")
    axes.plot(loop, error, color=COLOURS[0], linewidth=2.2, marker="o", markersize=3)
    axes.fill_between(loop, low, high, color=COLOURS[0], alpha=0.18, linewidth=0)
    axes.set(xlabel="loop", ylabel="squared error / dims")
    scale_errors(axes, error)
    return {"trained loops": axes.axvline(trained_loops(rows), color="#555555", linestyle=":", linewidth=1.2)}


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


def scale_errors(axes: Any, values: np.ndarray) -> None:
    """Make the axis of errors logarithmic where they differ by a decade, else linear from 0."""
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
