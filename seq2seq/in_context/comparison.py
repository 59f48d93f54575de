"""The plots of a report of several runs: the metric by loop and against block parameters, loss curves.

The metric is the error at the last point, of token tasks the accuracy: axes name it.

A line or a point is a method: the mean over its seeds, with a band from the least to the greatest of them, or a bar of
one standard deviation. Dots mark the trained number of loops. Block parameters are all but those of the read-in, the
read-out and what the stack has outside of its blocks (positions and the final norm), so that a delta per loop and a
scale per loop count.
"""

import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.drawing import COLOURS, legend_below, legend_height, new_figure, panels, save
from seq2seq.in_context.plots import scale_errors, scale_scores, trained_loops
from seq2seq.in_context.rows import read_rows
from seq2seq.in_context.tasks import ERROR, Measure, measure_of
from seq2seq.report.collect import Run
from seq2seq.report.labels import place_labels
from seq2seq.report.methods import Group, Method
from seq2seq.report.parameter_axis import ParameterAxis
from seq2seq.report.pareto_front import pareto_front
from seq2seq.report.scatter import FORMATS, FRONT, MAX_NAMES, bars_of, front_lines
from seq2seq.report.styles import LINES

OUTSIDE = ("read_in", "read_out", "stack")
"""Layers whose parameters are not those of blocks."""


def draw_metric_by_loop(path: Path, methods: Sequence[Method]) -> bool:
    """Draw the metric after each loop, a panel for each task; return False if no run has it."""
    found = {
        (task, label): curves
        for task, label, group in groups_of(methods)
        if (curves := [rows for run in group.runs if (rows := read_rows(run.directory, group.split, "by_loop"))])
    }
    figure, by_task = axes_of(found)
    drawn = {}
    for (task, label), curves in found.items():
        axes, style = by_task[task], style_of(label, methods)
        measure = measure_of(curves[0][0])
        values = np.array([[row[measure.key] for row in rows] for rows in curves], dtype=float)  # (seeds, loops)
        loops = np.arange(1, values.shape[1] + 1)
        drawn[label] = draw_mean(axes, loops, values, style)
        trained = trained_loops(curves[0])
        axes.plot(trained, values.mean(0)[trained - 1], "o", color=style["color"], markersize=7, zorder=4)
    for task, axes in by_task.items():
        of_task = [rows for (name, _), curves in found.items() if name == task for rows in curves]
        measure = measure_of(of_task[0][0])
        scale_scores(axes, np.array([row[measure.key] for rows in of_task for row in rows], dtype=float), measure)
        axes.set(title=title_of(task, measure), xlabel="loop (dot: trained)", ylabel=measure.axis)
    return finish(path, figure, by_task, drawn)


def draw_loss_curves(path: Path, methods: Sequence[Method]) -> bool:
    """Draw the training loss by step, and the validation loss as dots; return False if no run has it."""
    found = {
        (task, label): histories
        for task, label, group in groups_of(methods)
        if (histories := [run.history for run in group.runs if any("loss" in entry for entry in run.history)])
    }
    figure, by_task = axes_of(found)
    drawn = {}
    for (task, label), histories in found.items():
        axes, style = by_task[task], style_of(label, methods)
        drawn[label] = draw_mean(axes, *common_curve(histories, "loss"), style)
        steps, values = common_curve(histories, "eval_loss")
        axes.plot(steps, values.mean(0), "o", color=style["color"], markersize=3.5)
    for task, axes in by_task.items():
        of_task = [common_curve(histories, "loss")[1] for (name, _), histories in found.items() if name == task]
        scale_errors(axes, np.concatenate([values.ravel() for values in of_task]))
        axes.set(title=task, xlabel="step", ylabel="loss (dots: validation)")
    return finish(path, figure, by_task, drawn)


def draw_metric_by_parameters(path: Path, methods: Sequence[Method]) -> bool:
    """Draw the metric against block parameters, and the Pareto front; False if no run has it."""
    found = {
        (task, label): (statistics.fmean(block_parameters(run) for run in group.runs), group.score(task))
        for task, label, group in groups_of(methods)
        if group.score(task) is not None
    }
    labels = list(dict.fromkeys(label for _, label in found))
    names = {label: f"{n}" if len(labels) > MAX_NAMES else label for n, label in enumerate(labels, 1)}
    key = {f"{n}  {label}": handle_of(label, methods) for label, n in names.items() if n != label}
    figure, by_task = axes_of(found, key)
    placed = []
    for task, axes in by_task.items():
        here = [label for name, label in found if name == task]
        counts, scores = zip(*(found[task, label] for label in here), strict=True)
        axis, colours = ParameterAxis(counts), [style_of(label, methods)["color"] for label in here]
        measure = measure_of(next(group for name, _, group in groups_of(methods) if name == task).metrics[task])
        sign = -1 if measure.less_is_better else 1  # of the score
        points = [(axis.place(count), sign * score.mean) for count, score in zip(counts, scores, strict=True)]
        axis.prepare(axes)
        for (x, y), score, colour in zip(points, scores, colours, strict=True):
            axes.errorbar(x, y, score.std, fmt="o", color=colour, capsize=2, elinewidth=0.8, zorder=3)
        front = [points[index] for index in pareto_front([(x, sign * y) for x, y in points])]
        axes.step(*zip(*front, strict=True), where="post", color=FRONT, linewidth=1.2, zorder=1)
        highest = np.array([y + (score.std or 0) for (_, y), score in zip(points, scores, strict=True)])
        scale_scores(axes, highest, measure)
        title = f"{title_of(task, measure)}; line: Pareto front"
        axes.set(title=title, xlabel="block parameters", ylabel=measure.axis)
        lines = [*front_lines(front), *bars_of(points, scores)]
        placed.append((axes, points, [names[label] for label in here], colours, lines))
    if by_task:
        decorate(figure, by_task, key)
        for each in placed:
            place_labels(*each)
        save(figure, path, *FORMATS)
    return bool(by_task)


def title_of(task: str, measure: Measure) -> str:
    """The title of a panel: errors are those of the last point."""
    return f"{task}, last point" if measure is ERROR else task


def block_parameters(run: Run) -> int:
    """The parameters of a run's blocks, with their deltas."""
    return sum(row["parameters"] for name, row in run.result.parameters.layers.items() if name not in OUTSIDE)


def groups_of(methods: Sequence[Method]) -> list[tuple[str, str, Group]]:
    """Task, label and runs of every method."""
    return [(task, method.label, group) for method in methods for task, group in method.groups.items()]


def common_curve(histories: Sequence[Sequence[Mapping[str, float]]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which all histories have a value, and the values (seeds, steps)."""
    by_step = [{entry["step"]: entry[key] for entry in history if key in entry} for history in histories]
    steps = sorted(set.intersection(*(set(one) for one in by_step)))
    return np.array(steps), np.array([[one[step] for step in steps] for one in by_step])


def style_of(label: str, methods: Sequence[Method]) -> dict[str, Any]:
    """Colour and line of a method, in the order of the table."""
    index = [method.label for method in methods].index(label)
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index // len(COLOURS) % len(LINES)]}


def draw_mean(axes: Any, x: np.ndarray, values: np.ndarray, style: Mapping[str, Any]) -> Any:
    """Draw the mean of values (seeds, x) with a band of all of them, as axes may be logarithmic; return the line."""
    (line,) = axes.plot(x, values.mean(0), linewidth=1.5, **style)
    axes.fill_between(x, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
    return line


def handle_of(label: str, methods: Sequence[Method]) -> Any:
    """The point of a method in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none", marker="o", color=style_of(label, methods)["color"])


def axes_of(found: Mapping[tuple[str, str], Any], legend: Collection[str] | None = None) -> tuple[Any, dict[str, Any]]:
    """A figure with room for a legend, by default of all methods, and its axes by task."""
    tasks = list(dict.fromkeys(task for task, _ in found))
    labels = {label for _, label in found} if legend is None else legend
    figure = new_figure(3.8 * max(1, -(-len(tasks) // 2)) + (legend_height(labels) if labels else 0))
    return figure, dict(zip(tasks, panels(figure, len(tasks)) if tasks else [], strict=True))


def finish(path: Path, figure: Any, by_task: Mapping[str, Any], drawn: Mapping[str, Any]) -> bool:
    """Write a figure of curves; return False if it has none."""
    for axes in by_task.values():
        axes.xaxis.get_major_locator().set_params(integer=True)
    decorate(figure, by_task, drawn)
    if by_task:
        save(figure, path, *FORMATS)
    return bool(by_task)


def decorate(figure: Any, by_task: Mapping[str, Any], drawn: Mapping[str, Any]) -> None:
    """Titles, grids and the legend."""
    for axes in by_task.values():
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.25)
    legend_below(figure, drawn)


PLOTS = {
    "metric_by_parameters": ("Metric against block parameters", draw_metric_by_parameters),
    "metric_by_loop": ("Metric by loop", draw_metric_by_loop),
    "learning_curves": ("Loss curves", draw_loss_curves),
}
