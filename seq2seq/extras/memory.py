"""Memory by layer: a table and a plot of what the trainer measured, in every run that trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq.experiment import Extra
from seq2seq.report.memory import draw_memory, memory_cells, memory_table
from seq2seq.report.plots import PARTS

PLOT = "memory.png"


@dataclass(frozen=True, kw_only=True)
class Memory(Extra):
    """Bytes of parameters, gradients, optimizer state and activations; no key asks for it."""

    pictures = (PLOT,)

    def section(self, directory: Path, result: Mapping[str, Any]) -> str:
        layers = memory_by_layer(result)
        if not layers:
            return ""
        draw_memory(directory / PLOT, layers)
        missing = result["costs"].get("activations_not_measured")
        note = f"\nActivations were not measured: {missing}.\n" if missing else ""
        return f"```\n{memory_table(layers)}\n```\n{note}\n![memory by layer]({PLOT})\n"

    def tables(self, result: Mapping[str, Any]) -> dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]:
        layers = memory_by_layer(result)
        return {"memory_by_layer": (["layer", *PARTS], memory_cells(layers))} if layers else {}


def memory_by_layer(result: Mapping[str, Any]) -> dict[str, dict[str, int | None]]:
    """Bytes by layer and part; empty if nothing was trained."""
    return (result["costs"] or {}).get("memory_by_layer") or {}
