"""The plots of a comparison, each a PNG at page width, with a PDF and an SVG beside it.

    draw_metric_by_parameters    metric against trainable parameters, see ``scatter``
    draw_learning_curves         validation metric by step: mean over seeds with a band of one standard deviation
    draw_low_resource            metric against the number of training rows (log), with standard deviations
    draw_memory                  memory by layer: parameters, gradients, optimizer state, activations

``styles`` has the colour, marker and line style of a method.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from seq2seq.drawing import draw_layers, legend_below, legend_height, new_figure, panels, save, wrapped
from seq2seq.report.methods import Group, Method, Score
from seq2seq.report.names import method_labels
from seq2seq.report.scatter import FORMATS, draw_metric_by_parameters
from seq2seq.report.settings import canonical_json
from seq2seq.report.styles import method_styles
from seq2seq.report.tables import heading, rows_heading, task_metric, tasks_of

MAX_CURVES = 10
"""Maximum number of methods in the plots of learning curves and of memory; the best ones are drawn."""


def draw_learning_curves(path: Path, methods: Sequence[Method]) -> bool:
    """Draw a panel per task with the best methods; return False if no run logged a validation metric."""
    methods = methods[:MAX_CURVES]
    curves, metrics = defaultdict(dict), {}
    for method in methods:
        seen = set()
        for task, group in method.groups.items():
            curve = mean_curve(group)
            if curve is not None and id(group) not in seen:
                name = task if len(group.metrics) == 1 else "mixture"
                curves[name][method.label] = curve
                metrics[name] = task_metric(methods, task) if len(group.metrics) == 1 else "mean metric"
                seen.add(id(group))
    if not curves:
        return False
    styles = method_styles([(method.label, method.settings) for method in methods])
    figure = new_figure(3.6 * -(-len(curves) // 2) + legend_height(styles))
    drawn = {}
    for axes, (task, lines) in zip(panels(figure, len(curves)), sorted(curves.items()), strict=True):
        for label, (steps, mean, std) in lines.items():
            few = 1 if len(steps) <= 12 else -(-len(steps) // 12)
            (drawn[label],) = axes.plot(steps, mean, linewidth=1.5, markevery=few, **styles[label])
            if len(steps) > 1:
                axes.fill_between(steps, mean - std, mean + std, color=styles[label]["color"], alpha=0.15, linewidth=0)
            else:
                axes.errorbar(steps, mean, std, color=styles[label]["color"], capsize=3, elinewidth=0.9)
        axes.set(title=heading(methods, [task]), xlabel="step", ylabel=f"validation {metrics[task]}")
        axes.set_xlim(0, 1.03 * max(steps[-1] for steps, _, _ in lines.values()) or 1)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
    legend_below(figure, drawn)
    save(figure, path, *FORMATS)
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
    styles = method_styles([(label, members[0][0]) for label, members in zip(labels, varied, strict=True)])
    figure = new_figure(3.6 * -(-len(curves) // 2) + legend_height(labels))
    drawn = {}
    for axes, (task, lines) in zip(panels(figure, len(curves)), sorted(curves.items()), strict=True):
        limits = sorted({rows for scores in lines.values() for rows in scores if rows is not None})
        all_rows = 2 * limits[-1]  # position of the runs on all rows
        for label, scores in lines.items():
            points = sorted((rows or all_rows, score.mean, score.std or 0.0) for rows, score in scores.items())
            drawn[label] = axes.errorbar(*zip(*points, strict=True), capsize=3, elinewidth=0.9, **styles[label])
        axes.set_xscale("log")
        ticks = {rows: f"{rows:,}" for rows in limits}
        if any(None in scores for scores in lines.values()):
            ticks[all_rows] = "all"
        axes.set_xticks(list(ticks), list(ticks.values()), minor=False)
        axes.set_xticks([], minor=True)
        axes.set(title=task, xlabel="training rows", ylabel=task_metric(methods, task))
        axes.grid(alpha=0.25)
    legend_below(figure, drawn)
    save(figure, path, *FORMATS)
    return True


def draw_memory(path: Path, methods: Sequence[Method]) -> bool:
    """Draw memory by layer of the best methods, a panel for each part; return False if no run measured it."""
    found, chosen = {}, []
    for method in methods:
        runs = [run for group in method.groups.values() for run in group.runs]
        layers = next((run.result.costs.memory_by_layer for run in runs if run.result.costs), None)
        if layers and len(found) < MAX_CURVES:
            found[method.label] = layers
            chosen.append((method.label, method.settings))
    if not found:
        return False
    bars = len({layer for layers in found.values() for layer in layers})
    figure = new_figure(0.26 * bars + 1.5 + legend_height(found))
    drawn = draw_layers(figure, found, method_styles(chosen))
    title = rows_heading(methods)
    figure.suptitle(wrapped(title if drawn else f"{next(iter(found))}, {title}"), fontsize=10)
    legend_below(figure, drawn)
    save(figure, path, *FORMATS)
    return True


PLOTS: dict[str, tuple[str, Callable[[Path, Sequence[Method]], bool]]] = {
    "metric_by_parameters": ("Metric against trainable parameters", draw_metric_by_parameters),
    "learning_curves": ("Learning curves", draw_learning_curves),
    "low_resource": ("Metric against the number of training rows", draw_low_resource),
    "memory_by_layer": ("Memory by layer", draw_memory),
}
