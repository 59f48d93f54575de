"""The plots of a comparison, each a PNG at page width.

    draw_metric_by_parameters    metric against trainable parameters (log), the Pareto front, a label at each point
    draw_learning_curves         validation metric by step: mean over seeds with a band of one standard deviation
    draw_low_resource            metric against the number of training rows (log), with standard deviations
    draw_memory                  memory by layer: parameters, gradients, optimizer state, activations

Each method has its own colour and line style.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.drawing import COLOURS, draw_layers, legend_below, new_figure, save, styles_of
from seq2seq.report.labels import place_labels
from seq2seq.report.methods import Group, Method, Score, canonical_json, method_labels
from seq2seq.report.pareto_front import pareto_front
from seq2seq.report.tables import tasks_of

MAX_PANELS = 12
"""Maximum number of methods in the plot of memory by layer; the best ones are drawn."""
MAX_CURVES = len(COLOURS)
"""Maximum number of methods in the plot of learning curves, so that each has its own colour."""


def panels(figure: Any, count: int, **kwargs: Any) -> list[Any]:
    """Create ``count`` axes, in two columns if there are several."""
    columns = min(count, 2)
    axes = list(figure.subplots(-(-count // columns), columns, squeeze=False, **kwargs).flat)
    for unused in axes[count:]:
        unused.remove()
    return axes[:count]


def draw_metric_by_parameters(path: Path, methods: Sequence[Method]) -> bool:
    """Draw the average over the tasks of each method evaluated on all of them; return False if there is none."""
    tasks = tasks_of(methods)
    drawn = [(method, method.average()) for method in methods if all(method.score(task) for task in tasks)]
    if not drawn:
        return False
    points = [(method.mean("trainable_parameters"), score.mean) for method, score in drawn]
    figure = new_figure(5.5)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for (x, y), (_, score) in zip(points, drawn, strict=True):
        axes.errorbar(x, y, yerr=score.std, fmt="o", color=COLOURS[0], markersize=5, capsize=2, elinewidth=0.8)
    front = [points[index] for index in pareto_front(points)]
    axes.step(*zip(*front, strict=True), where="post", color=COLOURS[1], linewidth=1.2, zorder=1, label="Pareto front")
    axes.set(
        xlabel="trainable parameters",
        ylabel="average_metrics" if len(tasks) == 1 else f"average_metrics, mean of {len(tasks)} tasks",
        title=tasks[0] if len(tasks) == 1 else None,
    )
    axes.margins(x=0.12, y=0.12)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)
    corners = [(x, y) for (_, y), (x, _) in itertools.pairwise(front)]
    lines = [
        *itertools.pairwise([point for pair in zip(front, [*corners, None], strict=True) for point in pair if point])
    ]
    bars = [
        ((x, y - score.std), (x, y + score.std)) for (x, y), (_, score) in zip(points, drawn, strict=True) if score.std
    ]
    place_labels(axes, points, [method.label for method, _ in drawn], [*lines, *bars])
    save(figure, path)
    return True


def draw_learning_curves(path: Path, methods: Sequence[Method]) -> bool:
    """Draw a panel per task with the best methods; return False if no run logged a validation metric."""
    methods = methods[:MAX_CURVES]
    curves = defaultdict(list)
    for method in methods:
        seen = set()
        for task, group in method.groups.items():
            curve = mean_curve(group)
            if curve is not None and id(group) not in seen:
                name = task if len(group.metrics) == 1 else "mixture"
                curves[name].append((method.label, curve))
                seen.add(id(group))
    if not curves:
        return False
    styles = styles_of([method.label for method in methods])
    figure = new_figure(3.6 * -(-len(curves) // 2) + 0.17 * (len(methods) // 3 + 1))
    drawn = {}
    for axes, (task, lines) in zip(panels(figure, len(curves)), sorted(curves.items()), strict=True):
        for label, (steps, mean, std) in lines:
            (drawn[label],) = axes.plot(steps, mean, linewidth=1.5, **styles[label])
            axes.fill_between(steps, mean - std, mean + std, color=styles[label]["color"], alpha=0.15, linewidth=0)
        axes.set(title=task, xlabel="step", ylabel="validation average_metrics")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
    legend_below(figure, drawn)
    save(figure, path)
    return True


def mean_curve(group: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return steps, mean and standard deviation over the runs of a group, at the steps that all of them have."""
    runs = [
        {entry["step"]: entry["eval_average_metrics"] for entry in run.history if "eval_average_metrics" in entry}
        for run in group.runs
    ]
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    if not steps:
        return None
    values = np.array([[run[step] for step in steps] for run in runs])
    return np.array(steps), values.mean(0), values.std(0, ddof=1) if len(runs) > 1 else np.zeros(len(steps))


def draw_low_resource(path: Path, methods: Sequence[Method]) -> bool:
    """Draw a panel per task with methods trained on several numbers of rows; return False if there is none."""
    families = defaultdict(list)
    for method in methods:
        rest = {key: value for key, value in method.settings.items() if key != "max_train_samples"}
        families[canonical_json(rest)].append((rest, method))
    varied = [members for members in families.values() if len({method.train_rows for _, method in members}) > 1]
    labels = method_labels([members[0][0] for members in varied])
    curves: dict[str, dict[str, dict[int | None, Score]]] = defaultdict(dict)
    for label, members in zip(labels, varied, strict=True):
        for task in tasks_of(method for _, method in members):
            scores = {method.train_rows: method.score(task) for _, method in members}
            scores = {rows: score for rows, score in scores.items() if score is not None}
            if len(scores) > 1:
                curves[task][label] = scores
    if not curves:
        return False
    styles = styles_of(labels)
    figure = new_figure(3.6 * -(-len(curves) // 2) + 0.17 * (len(labels) // 3 + 1))
    drawn = {}
    for axes, (task, lines) in zip(panels(figure, len(curves)), sorted(curves.items()), strict=True):
        limits = sorted({rows for scores in lines.values() for rows in scores if rows is not None})
        all_rows = 2 * limits[-1]  # position of the runs on all rows
        for label, scores in lines.items():
            points = sorted((rows or all_rows, score.mean, score.std or 0.0) for rows, score in scores.items())
            drawn[label] = axes.errorbar(
                *zip(*points, strict=True), marker="o", markersize=4, capsize=3, **styles[label]
            )
        axes.set_xscale("log")
        ticks = {rows: str(rows) for rows in limits}
        if any(None in scores for scores in lines.values()):
            ticks[all_rows] = "all"
        axes.set_xticks(list(ticks), list(ticks.values()), minor=False)
        axes.set_xticks([], minor=True)
        axes.set(title=task, xlabel="training rows", ylabel="average_metrics")
        axes.grid(alpha=0.25)
    legend_below(figure, drawn)
    save(figure, path)
    return True


def draw_memory(path: Path, methods: Sequence[Method]) -> bool:
    """Draw a panel for each of the best methods with a bar per layer; return False if no run measured it."""
    found = []
    for method in methods:
        runs = [run for group in method.groups.values() for run in group.runs]
        layers = next((run.result.costs.memory_by_layer for run in runs if run.result.costs), None)
        if layers:
            found.append((method.label, layers))
    found = found[:MAX_PANELS]
    if not found:
        return False
    bars = max(len(layers) for _, layers in found)
    figure = new_figure(-(-len(found) // 2) * (0.24 * bars + 1.1) + 0.4)
    drawn = {}
    for axes, (label, layers) in zip(panels(figure, len(found), sharex=True), found, strict=True):
        drawn |= draw_layers(axes, layers)
        axes.set_title(label, fontsize=9)
    legend_below(figure, drawn)
    save(figure, path)
    return True


PLOTS: dict[str, tuple[str, Callable[[Path, Sequence[Method]], bool]]] = {
    "metric_by_parameters": ("Metric against trainable parameters", draw_metric_by_parameters),
    "learning_curves": ("Learning curves", draw_learning_curves),
    "low_resource": ("Metric against the number of training rows", draw_low_resource),
    "memory_by_layer": ("Memory by layer", draw_memory),
}
