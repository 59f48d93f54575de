"""What plots have in common: size, colours, a legend below, files that are written completely or not at all."""

import math
import textwrap
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adapters.saved.files import replace_file

WIDTH = 9.0
"""Inches; times DPI, the width of a page in pixels."""

DPI = 150
MAX_LABEL = 110
"""Characters in a line of a legend."""

COLOURS = ("#4477aa", "#ee6677", "#228833", "#b8860b", "#66ccee", "#aa3377", "#777777", "#e07b00", "#3b3b98", "#2a9d8f")
PARTS = {"parameters": "#4477aa", "gradients": "#ee6677", "optimizer": "#ccbb44", "activations": "#228833"}
"""The parts of a layer's memory, with their colours."""


def new_figure(height: float) -> Any:
    """Create an empty figure of page width, ``height`` in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(figure: Any, count: int, **kwargs: Any) -> list[Any]:
    """Create ``count`` axes, in two columns if there are several."""
    columns = min(count, 2)
    axes = list(figure.subplots(-(-count // columns), columns, squeeze=False, **kwargs).flat)
    for unused in axes[count:]:
        unused.remove()
    return axes[:count]


def draw_layers(
    figure: Any, by_run: Mapping[str, Mapping[str, Mapping[str, int | None]]], styles: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Draw memory in MiB by layer, each part on a scale of its own: bars for one run, markers for several.

    Args:
        by_run: for each run, bytes by layer and part; None for what was not measured.
        styles: matplotlib's keywords for each run, with a marker.

    Returns:
        The markers by run; empty for one run.
    """
    layers = list(dict.fromkeys(layer for one in by_run.values() for layer in one))
    places, drawn = np.arange(len(layers)), {}
    for axes, (part, colour) in zip(figure.subplots(1, len(PARTS), sharey=True), PARTS.items(), strict=True):
        sizes = {
            run: np.array([np.nan if one.get(layer, {}).get(part) is None else one[layer][part] for layer in layers])
            for run, one in by_run.items()
        }
        known = {run: values / 2**20 for run, values in sizes.items() if not np.isnan(values).all()}
        for run, values in known.items():
            if len(by_run) == 1:
                axes.barh(places, values, color=colour, height=0.8)
            else:
                style = {**styles[run], "linestyle": "none"}
                (drawn[run],) = axes.plot(values, places, alpha=0.85, clip_on=False, zorder=3, **style)
        positive = [value for values in known.values() for value in values if value > 0]
        if len(by_run) > 1 and positive and max(positive) > 30 * min(positive):
            decades = range(math.floor(math.log10(min(positive))), math.floor(math.log10(max(positive))) + 1)
            axes.set_xscale("symlog", linthresh=10.0 ** decades[0], linscale=0.7)
            axes.set_xlim(-0.2 * 10.0 ** decades[0], 2 * max(positive))
            axes.set_xticks([0, *(10.0**decade for decade in decades[:: -(-len(decades) // 3)])])
            axes.set_xticks([], minor=True)
        else:
            highest = max(positive, default=1.0)
            axes.set_xlim(-0.06 * highest if len(by_run) > 1 else 0, 1.08 * highest)
            axes.xaxis.get_major_locator().set_params(nbins=4)
        total = f"{np.nansum(next(iter(known.values()))):,.3g} MiB" if len(by_run) == 1 and known else ""
        axes.set_title(f"{part}\n{total}".strip() if known else f"{part}\nnot measured", fontsize=9)
        axes.set_xlabel("MiB", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.set_axisbelow(True)
        axes.grid(alpha=0.25, axis="x" if len(by_run) == 1 else "both")
    axes.set_yticks(places, layers)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    return drawn


def legend_below(figure: Any, drawn: Mapping[str, Any]) -> None:
    """Draw one legend for all lines below the panels, where it covers nothing; long labels have several lines."""
    if not drawn:
        return
    figure.legend(
        list(drawn.values()),
        [wrapped(label) for label in drawn],
        loc="outside lower center",
        ncols=legend_columns(drawn),
        fontsize=8,
        frameon=False,
        handlelength=3,
    )


def legend_columns(labels: Iterable[str]) -> int:
    """The number of columns in which these labels fit into the width of a page."""
    labels = list(labels)
    longest = min(max(map(len, labels), default=1), MAX_LABEL)
    return max(1, min(4, len(labels), int(WIDTH / (0.065 * longest + 0.65))))


def legend_height(labels: Collection[str]) -> float:
    """Inches that a legend of these labels adds to a figure."""
    columns, lines = legend_columns(labels), [wrapped(label).count("\n") + 1 for label in labels]
    height = -(-len(lines) // columns)  # entries are listed column by column
    return 0.2 * max((sum(lines[i : i + height]) for i in range(0, len(lines), height or 1)), default=0) + 0.1


def wrapped(label: str) -> str:
    """A label in lines that fit into the width of a page."""
    return textwrap.fill(label, MAX_LABEL)


def save(figure: Any, path: Path, *formats: str) -> None:
    """Write a picture completely or not at all: the PNG at ``path``, and other formats such as "pdf" beside it."""
    import matplotlib

    settings = {"pdf.fonttype": 42, "svg.hashsalt": path.stem}  # fonts that journals accept; equal bytes every time
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # everything is in its place, which takes longer to find than to draw
    with matplotlib.rc_context(settings):
        for form in ("png", *formats):
            replace_file(
                path.with_suffix(f".{form}"),
                lambda partial, form=form: figure.savefig(partial, format=form, metadata=undated.get(form)),
            )
