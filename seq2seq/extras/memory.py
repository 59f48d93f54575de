"""Memory by layer, in bytes: a table and a plot of what the trainer measured, in every run that trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.tables import render_table
from seq2seq.drawing import PARTS, draw_layers, legend_below, new_figure, save
from seq2seq.experiment import Extra

PLOT = "memory.png"

Layers = Mapping[str, Mapping[str, int | None]]


@dataclass(frozen=True, kw_only=True)
class Memory(Extra):
    """Bytes of parameters, gradients, optimizer state and activations; no key asks for it."""

    pictures = (PLOT,)

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        layers = layers_of(result)
        if not layers:
            return ""
        draw_memory(directory / PLOT, layers)
        missing = result["costs"].get("activations_not_measured")
        note = f"\nActivations were not measured: {missing}.\n" if missing else ""
        return f"```\n{memory_table(layers)}\n```\n{note}\n![memory by layer]({PLOT})\n"

    def tables(self, result: Mapping[str, Any]) -> dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]:
        layers = layers_of(result)
        return {"memory_by_layer": (["layer", *PARTS], memory_cells(layers))} if layers else {}


def layers_of(result: Mapping[str, Any]) -> Layers:
    """Bytes by layer and part; empty if nothing was trained."""
    return (result["costs"] or {}).get("memory_by_layer") or {}


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
