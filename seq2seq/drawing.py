"""What plots have in common: size, colours, a legend below, files that are written completely or not at all."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapters.saved.files import replace_file

WIDTH = 9.0
"""Inches; times DPI, the width of a page in pixels."""

DPI = 150
COLOURS = ("#4477aa", "#ee6677", "#228833", "#b8860b", "#66ccee", "#aa3377", "#777777", "#e07b00", "#3b3b98", "#2a9d8f")
LINES = ("-", "--", ":", "-.")
PARTS = {"parameters": "#4477aa", "gradients": "#ee6677", "optimizer": "#ccbb44", "activations": "#228833"}
"""The parts of a layer's memory, with their colours."""


def styles_of(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Assign a colour and a line style to each label."""
    pairs = itertools.cycle((line, colour) for line in LINES for colour in COLOURS)
    return {label: {"color": colour, "linestyle": line} for label, (line, colour) in zip(labels, pairs, strict=False)}


def new_figure(height: float) -> Any:
    """Create an empty figure of page width, ``height`` in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_layers(axes: Any, layers: Mapping[str, Mapping[str, int | None]]) -> dict[str, Any]:
    """Draw a stacked bar in MiB for each layer and return the bars by part.

    Args:
        layers: bytes by layer and part; None for what was not measured.
    """
    drawn, left = {}, np.zeros(len(layers))
    for part, colour in PARTS.items():
        sizes = np.array([(row.get(part) or 0) / 2**20 for row in layers.values()])
        if sizes.any():
            drawn[part] = axes.barh(list(layers), sizes, left=left, color=colour, height=0.8)
            left += sizes
    axes.invert_yaxis()
    axes.tick_params(labelsize=8, labelbottom=True)
    axes.set_xlabel("MiB", fontsize=8)
    axes.grid(alpha=0.25, axis="x")
    return drawn


def legend_below(figure: Any, drawn: dict[str, Any]) -> None:
    """Draw one legend for all lines below the panels."""
    figure.legend(
        list(drawn.values()),
        list(drawn),
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        frameon=False,
        handlelength=3,
    )


def save(figure: Any, path: Path) -> None:
    """Write a PNG completely or not at all."""
    replace_file(path, lambda partial: figure.savefig(partial, format="png"))
