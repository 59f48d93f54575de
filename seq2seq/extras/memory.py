"""Memory by layer, in bytes: a table and a plot of what the trainer measured, in every run that trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.tables import render_table
from seq2seq.drawing import PARTS, draw_layers, new_figure, save
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
        sums = memory_note(layers, result["costs"].get("peak_memory_bytes"))
        return f"```\n{memory_table(layers)}\n```\n\n{sums}{note}\n![memory by layer]({PLOT})\n\n"

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
    """A bar for each layer in MiB, each part on a scale of its own."""
    figure = new_figure(0.24 * len(layers) + 1.3)
    draw_layers(figure, {"": layers}, {})
    save(figure, path)


def memory_note(layers: Layers, peak: int | None) -> str:
    """A paragraph about the sum of the table, beside peak memory in bytes."""
    whole = sum(size or 0 for row in layers.values() for size in row.values())
    measured = "" if peak is None else f" of {peak / 2**20:,.0f} MiB"
    return (
        f"Together these tensors are {whole / 2**20:,.1f} MiB: the weights, gradients and optimizer state after the "
        "first update, and what a forward pass saves for the backward pass. Peak memory"
        f"{measured} is more: on a CPU all that the process has used (Python, PyTorch and other libraries, the data, "
        "intermediate results, generation), on a GPU all that was allocated at once.\n"
    )
