"""The plot of metric against trainable parameters: the Pareto front, and a name or a number at each point.

Up to MAX_NAMES methods with short names have these at their points. Others have the number that they have in the table,
and a key below the plot. Short dashes are the seeds, bars are one standard deviation.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seq2seq.drawing import WIDTH, legend_below, legend_height, new_figure, panels, save
from seq2seq.report.labels import place_labels, width_of
from seq2seq.report.methods import Method, Score
from seq2seq.report.parameter_axis import ParameterAxis
from seq2seq.report.pareto_front import pareto_front
from seq2seq.report.styles import method_style
from seq2seq.report.tables import average_name, heading, tasks_of

FORMATS = ("pdf", "svg")
"""What is written beside each PNG."""

MAX_NAMES = 12
MAX_NAME_WIDTH = 0.4
"""Of a panel's width."""

MAX_PANELS = 4
FRONT = "#999999"

Point = tuple[float, float]


class Points(NamedTuple):
    """What has been drawn: the points of methods, and lines that names should not cover."""

    points: list[Point]
    lines: list[tuple[Point, Point]]


def draw_metric_by_parameters(path: Path, methods: Sequence[Method]) -> bool:
    """Draw the average over the tasks of each method evaluated on all of them; return False if there is none.

    If methods were evaluated on different tasks, each task has a panel of its own, unless there are many tasks.
    """
    from matplotlib.lines import Line2D

    tasks = tasks_of(methods)
    on_all = methods_on(methods, tasks)
    groups = [tasks] if on_all and (len(on_all) == len(methods) or len(tasks) > MAX_PANELS) else [[t] for t in tasks]
    drawn = {tuple(group): methods_on(methods, group) for group in groups if methods_on(methods, group)}
    if not drawn:
        return False
    numbers = sorted({number for found in drawn.values() for number in found})
    names = [methods[number - 1].label for number in numbers]
    widest = MAX_NAME_WIDTH * WIDTH / min(len(drawn), 2)
    numbered = len(numbers) > MAX_NAMES or any(width_of(name) > widest for name in names)
    key = {}
    if numbered:
        for number in numbers:
            style = method_style(methods[number - 1].settings)
            key[f"{number}  {methods[number - 1].label}"] = Line2D([], [], linestyle="none", **style)
    if len(numbers) > 1:
        key["Pareto front"] = Line2D([], [], color=FRONT, linewidth=1.2)
    figure = new_figure(4.6 * -(-len(drawn) // 2) + legend_height(key))
    labelled = []
    for axes, (group, found) in zip(panels(figure, len(drawn)), drawn.items(), strict=True):
        names = [str(number) if numbered else method.label for number, method in found.items()]
        colours = [method_style(method.settings)["color"] for method in found.values()]
        labelled.append((axes, names, colours, draw_points(axes, list(found.values()), group)))
        axes.set_ylabel(average_name(methods, group))
        axes.set_title(heading(methods, group), fontsize=10)
    legend_below(figure, key)
    for axes, names, colours, (points, lines) in labelled:
        place_labels(axes, points, names, colours, lines)
    save(figure, path, *FORMATS)
    return True


def methods_on(methods: Sequence[Method], tasks: Sequence[str]) -> dict[int, Method]:
    """The methods that were evaluated on all of these tasks, by their numbers in the table."""
    return {n: method for n, method in enumerate(methods, 1) if tasks and all(map(method.score, tasks))}


def draw_points(axes: Any, methods: Sequence[Method], tasks: Sequence[str]) -> Points:
    """Draw a point for each method, its deviation and seeds, and the Pareto front."""
    by_seed = [list(method.by_seed(tasks).values()) for method in methods]
    scores = [method.average(tasks) for method in methods]
    axis = ParameterAxis([method.mean("trainable_parameters", tasks) for method in methods])
    points = [(axis.place(x), score.mean) for x, score in zip(axis.counts, scores, strict=True)]
    front = [points[index] for index in pareto_front(points)]
    axis.prepare(axes)
    for (x, y), method, score, seeds in zip(points, methods, scores, by_seed, strict=True):
        style = method_style(method.settings)
        axes.errorbar(x, y, yerr=score.std, capsize=2, elinewidth=0.8, zorder=3, **style)
        if score.std is not None and len(methods) <= MAX_NAMES:
            axes.plot([x] * len(seeds), seeds, "_", color=style["color"], markersize=8, zorder=2, label="_seeds")
    axes.step(*zip(*front, strict=True), where="post", color=FRONT, linewidth=1.2, zorder=1, label="Pareto front")
    axes.margins(y=0.12)
    axes.grid(alpha=0.25)
    return Points(points, [*front_lines(front), *bars_of(points, scores)])


def front_lines(front: Sequence[Point]) -> list[tuple[Point, Point]]:
    """The horizontal and vertical lines of a Pareto front with these points."""
    corners = [(x, y) for (_, y), (x, _) in itertools.pairwise(front)]
    steps = [point for pair in zip(front, [*corners, None], strict=True) for point in pair if point]
    return [*itertools.pairwise(steps)]


def bars_of(points: Sequence[Point], scores: Sequence[Score]) -> list[tuple[Point, Point]]:
    """The bars of one standard deviation at points."""
    found = zip(points, scores, strict=True)
    return [((x, y - score.std), (x, y + score.std)) for (x, y), score in found if score.std]
