"""Memory of one run by layer, in bytes: parameters, gradients, optimizer state, activations.

memory_table    for README.md
draw_memory     memory.png: a bar for each layer
"""

from collections.abc import Mapping
from pathlib import Path

from adapters.tables import render_table
from seq2seq.report.plots import PARTS, draw_layers, legend_below, new_figure, save

Layers = Mapping[str, Mapping[str, int | None]]


def memory_cells(layers: Layers) -> list[list[str | int | None]]:
    """A row for each layer: name and bytes in the order of PARTS; None for what was not measured."""
    return [[layer, *(row.get(part) for part in PARTS)] for layer, row in layers.items()]


def memory_table(layers: Layers) -> str:
    """Bytes by layer with their sums; a dash for what was not measured."""
    rows = memory_cells(layers)
    columns = list(zip(*(row[1:] for row in rows), strict=True))
    sums = [None if None in column else sum(column) for column in columns]
    rows.append(["all", *sums])
    cells = [[str(name), *("-" if size is None else f"{size:,}" for size in sizes)] for name, *sizes in rows]
    return render_table("Memory by layer, bytes", ["layer", *PARTS], cells)


def draw_memory(path: Path, layers: Layers) -> None:
    """A stacked bar for each layer, in MiB."""
    figure = new_figure(0.24 * len(layers) + 1.3)
    drawn = draw_layers(figure.add_subplot(), layers)
    legend_below(figure, drawn)
    save(figure, path)
