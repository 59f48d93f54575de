"""Expressivity: how far the model stretches a curve between two sources, before and after training.

The key ``measure_expressivity`` measures during the run, ``python -m seq2seq.expressivity`` measures finished
runs. Both write expressivity.json and expressivity.png into the run folder; ``trajectories`` has the mathematics.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters
from adapters import ConfigurationError
from adapters.tables import render_table
from seq2seq.drawing import COLOURS, legend_below, new_figure, save
from seq2seq.experiment import Experiment, Extra
from seq2seq.extras.trajectories import CHORDS, Pair, t5_trajectory
from seq2seq.run_folder import read_earlier, write_json
from seq2seq.workload import Prepared

FILE, PLOT = "expressivity.json", "expressivity.png"

PAIRS = 4
"""Pairs of sources of each task, over which lengths are averaged."""

MOMENTS = {"before": "--", "after": "-"}

SECTION = f"""
How far a curve between two sources is stretched, layer by layer (the values are in {FILE}):

![trajectory lengths]({PLOT})
"""


@dataclass(frozen=True, kw_only=True)
class Expressivity(Extra):
    """Trajectory lengths by layer, before and after training.

    Args:
        measure_expressivity: whether they are measured.
    """

    pictures = (PLOT,)

    measure_expressivity: bool = False

    def check_prepared(self, experiment: Experiment, prepared: Prepared) -> None:
        if self.measure_expressivity:
            source_pairs(experiment, prepared)

    def before(self, experiment: Experiment, prepared: Prepared) -> Any:
        if self.measure_expressivity and prepared.is_main_process:
            return measure(experiment, prepared)
        return None

    def after(
        self, experiment: Experiment, prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        if not self.measure_expressivity or not prepared.is_main_process:
            return {"expressivity": earlier.get("expressivity")}
        return {"expressivity": summary(record(directory, before, measure(experiment, prepared)))}

    def is_satisfied_by(self, result: Mapping[str, Any]) -> bool:
        return not self.measure_expressivity or result.get("expressivity") is not None

    def table_rows(self, experiment: Experiment, result: Mapping[str, Any]) -> list[list[str]]:
        rows = []
        for stack, lengths in (result.get("expressivity") or {}).items():
            known = ", ".join(f"{value:.3f} {moment}" for moment, value in lengths.items() if value is not None)
            rows.append([f"growth of a trajectory, {stack}", f"{known} training"])
        return rows

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        return SECTION if result.get("expressivity") else ""


def source_pairs(experiment: Experiment, prepared: Prepared) -> dict[str, list[Pair]]:
    """The first pairs of different sources of each task; the decoder is given the target of the first source.

    Raises:
        ConfigurationError: the model is no encoder-decoder that generates, or a task has fewer than two sources.
    """
    model = prepared.model
    if not (getattr(model.config, "is_encoder_decoder", False) and model.can_generate()):
        raise ConfigurationError(
            "Key 'measure_expressivity' needs a model with an encoder and a decoder that generates; got a "
            f"{type(model).__name__}: set it to false."
        )
    pairs = {}
    for name, samples in experiment.workload.samples(prepared).items():
        rows: dict[tuple[int, ...], list[int]] = {}
        for row in samples:
            rows.setdefault(tuple(row["input_ids"]), row["labels"])
            if len(rows) == 2 * PAIRS:
                break
        if len(rows) < 2:
            raise ConfigurationError(
                f"Key 'measure_expressivity' needs a curve between two different sources; got {len(rows)} of them in "
                f"the rows of {name!r}: take more rows, or set it to false."
            )
        start, sources = model.config.decoder_start_token_id, list(rows)
        pairs[name] = [
            Pair(first, second, [start, *rows[first][:-1]])
            for first, second in zip(sources[::2], sources[1::2], strict=False)
        ]
    return pairs


def measure(
    experiment: Experiment, prepared: Prepared, curve: str = "arc", chords: int = CHORDS
) -> dict[str, float | None]:
    """Lengths by layer, averaged over the pairs of all tasks, each with the adapters that act on it.

    A length that is not finite, as of a model that diverged, is None.
    """
    model, by_task = prepared.model, source_pairs(experiment, prepared)
    lengths, count = {}, sum(len(pairs) for pairs in by_task.values())
    for task, pairs in by_task.items():
        if task in experiment.workload.adapter_tasks:
            adapters.set_active_task(model, task)
        of_task = t5_trajectory(model, pairs, model.config.pad_token_id, curve, chords)
        for name, length in of_task.items():
            lengths[name] = lengths.get(name, 0.0) + length * len(pairs) / count
    return {name: length if math.isfinite(length) else None for name, length in lengths.items()}


def record(
    directory: Path,
    before: dict[str, float | None] | None,
    after: dict[str, float | None],
    curve: str = "arc",
    chords: int = CHORDS,
) -> dict[str, Any]:
    """Write expressivity.json and expressivity.png into a run folder, and return what the first one holds.

    A run that did not train has no ``before``; that of an earlier record of the same curve is kept.
    """
    path = directory / FILE
    if before is None:
        earlier = read_earlier(path, dict)
        before = earlier.get("before") if (earlier.get("curve"), earlier.get("chords")) == (curve, chords) else None
    measured = {"curve": curve, "chords": chords, "pairs_per_task": PAIRS, "before": before, "after": after}
    write_json(path, measured)
    draw_expressivity(directory / PLOT, {"": measured})
    return measured


def growth(lengths: Mapping[str, float | None] | None, layer: str) -> float | None:
    """The length at a layer over that of the curve; None if one of them is not known."""
    if lengths is None or not lengths["input"] or lengths[layer] is None:
        return None
    return lengths[layer] / lengths["input"]


def summary(measured: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Growth of the curve up to the end of each stack, after its norm, before and after training."""
    return {
        stack: {moment: growth(measured[moment], f"{stack} norm") for moment in MOMENTS}
        for stack in ("encoder", "decoder")
    }


def layers_of(measured: dict[str, Any], alone: bool) -> list[str]:
    """The layers of the model in their order, or its blocks alone."""
    return [name for name in measured["after"] if name != "input" and name.endswith(" alone") == alone]


def expressivity_table(name: str, measured: dict[str, Any]) -> str:
    """Length over that of the curve, by layer: in the model and, for blocks, alone; before and after training."""

    def cells(layer: str) -> list[str]:
        values = [growth(measured[moment], layer) if layer in measured["after"] else None for moment in MOMENTS]
        return ["" if value is None else f"{value:.4f}" for value in values]

    rows = [[layer, *cells(layer), *cells(f"{layer} alone")] for layer in layers_of(measured, alone=False)]
    header = ["length / that of the curve", "before", "after", "alone, before", "alone, after"]
    return render_table(f"{name}: {measured['curve']} of {measured['chords']} chords", header, rows)


def draw_expressivity(path: Path, by_run: Mapping[str, dict[str, Any]]) -> None:
    """Growth by layer in the model and of each block alone; a colour for each run, before training dashed."""
    from matplotlib.ticker import LogFormatter

    figure = new_figure(4.5)
    drawn = {}
    for axes, alone, title in zip(figure.subplots(1, 2), (False, True), ("in the model", "blocks alone"), strict=True):
        for index, (run, measured) in enumerate(by_run.items()):
            layers = layers_of(measured, alone)
            for moment, style in MOMENTS.items():
                values = [growth(measured[moment], layer) for layer in layers]
                if any(values):
                    names = [layer.removesuffix(" alone") for layer in layers]
                    heights = [math.nan if value is None else value for value in values]
                    label = f"{run} {moment}".strip()
                    colour = COLOURS[index % len(COLOURS)]
                    (drawn[label],) = axes.plot(names, heights, style, marker="o", markersize=3, color=colour)
        axes.set(title=title, ylabel="length / length of the curve")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
        axes.tick_params(axis="x", labelrotation=90, labelsize=8)
        axes.grid(alpha=0.25)
    legend_below(figure, drawn)
    save(figure, path)
