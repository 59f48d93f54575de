"""How far a run's model stretches a curve between two sources, before and after training (``trajectories``).

    python -m seq2seq.extras.expressivity outputs/rte_tt_lora
    python -m seq2seq.extras.expressivity outputs/rte_tt_lora outputs/rte_bottleneck --curve circle --out comparison.png

The run key ``measure_expressivity`` measures while the run goes on; the command measures finished runs: the adapter as
it started against the adapter as it was saved. Both write expressivity.json and expressivity.png into the run's folder;
of several runs the command draws one plot besides. Exit status 2: a run was refused; 1: its adapter cannot be read.
"""

import argparse
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import adapters
from adapters import CheckpointError, ConfigurationError
from adapters.tables import render_table
from adapters.validation import nearest_name
from seq2seq.configuration.reading import load_values, read_experiment
from seq2seq.extras.trajectories import CHORDS, CURVES, Pair, t5_trajectory
from seq2seq.report.plots import COLOURS, legend_below, new_figure, save
from seq2seq.run_folder import RunFolder, read_json, write_json
from seq2seq.text.preparation import Prepared, prepare

PAIRS = 4
"""Pairs of sources of each task, over which lengths are averaged."""

MOMENTS = {"before": "--", "after": "-"}


def source_pairs(prepared: Prepared) -> dict[str, list[Pair]]:
    """The first pairs of different sources of each task, of the validation split where there is one.

    The decoder is given the target of the first source.

    Raises:
        ConfigurationError: a task has fewer than two different sources.
    """
    pairs = {}
    for name, task in prepared.tasks.items():
        split = next(split for split in ("validation", "test", "train") if split in task.encoded)
        rows: dict[tuple[int, ...], list[int]] = {}
        for row in task.encoded[split]:
            rows.setdefault(tuple(row["input_ids"]), row["labels"])
            if len(rows) == 2 * PAIRS:
                break
        if len(rows) < 2:
            raise ConfigurationError(
                f"Key 'measure_expressivity' needs a curve between two sources; the {split} split of {name!r} has "
                f"{len(rows)} different: take more rows, or set it to false."
            )
        start, sources = prepared.model.config.decoder_start_token_id, list(rows)
        pairs[name] = [
            Pair(first, second, [start, *rows[first][:-1]])
            for first, second in zip(sources[::2], sources[1::2], strict=False)
        ]
    return pairs


def measure(prepared: Prepared, curve: str = "arc", chords: int = CHORDS) -> dict[str, float | None]:
    """Lengths by layer, averaged over the pairs of all tasks, each with the adapters that act on it.

    A length that is not finite, as of a model that diverged, is None.
    """
    model, by_task = prepared.model, source_pairs(prepared)
    lengths, count = {}, sum(len(pairs) for pairs in by_task.values())
    for task, pairs in by_task.items():
        if prepared.experiment.run.adapters_per_task:
            adapters.set_active_task(model, task)
        of_task = t5_trajectory(model, pairs, prepared.tokenizer.pad_token_id, curve, chords)
        for name, length in of_task.items():
            lengths[name] = lengths.get(name, 0.0) + length * len(pairs) / count
    return {name: length if math.isfinite(length) else None for name, length in lengths.items()}


def record(
    folder: RunFolder,
    before: dict[str, float | None] | None,
    after: dict[str, float | None],
    curve: str = "arc",
    chords: int = CHORDS,
) -> dict[str, Any]:
    """Write expressivity.json and expressivity.png, and return what the first one holds.

    A run that did not train has no ``before``; then that of an earlier record of the same curve stays.
    """
    if before is None and folder.expressivity.is_file():
        earlier = read_json(folder.expressivity)
        before = earlier["before"] if (earlier["curve"], earlier["chords"]) == (curve, chords) else None
    measured = {"curve": curve, "chords": chords, "pairs_per_task": PAIRS, "before": before, "after": after}
    write_json(folder.expressivity, measured)
    draw_expressivity(folder.expressivity_plot, {"": measured})
    return measured


def growth(lengths: Mapping[str, float | None] | None, layer: str) -> float | None:
    """The length at a layer over that of the curve; None where one of them is not known."""
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


def measure_finished(directory: Path, curve: str, chords: int) -> dict[str, Any]:
    """Measure a run's adapter as it started and as it was saved, and write the record into the run's folder.

    Raises:
        ConfigurationError: the folder is no finished run, or its configuration is refused.
        CheckpointError: the saved adapter cannot be read.
    """
    folder = RunFolder(directory)
    if not folder.config.is_file() or not folder.adapter.is_dir():
        lacking = folder.adapter if folder.config.is_file() else folder.config
        raise ConfigurationError(
            f"Expressivity is measured of runs that have trained; got {directory}, and {lacking} is not there: "
            "name the folder of a finished run."
        )
    experiment = read_experiment({**load_values(folder.config), "log_to_wandb": False})
    prepared = prepare(experiment, trained=directory / "none")  # the adapter as it starts
    before = measure(prepared, curve, chords)
    adapters.load(prepared.model, folder.adapter)
    return record(folder, before, measure(prepared, curve, chords), curve, chords)


def main(arguments: list[str] | None = None) -> int:
    """Measure the runs that the command line names and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.extras.expressivity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--curve", default="arc", help=f"one of {', '.join(CURVES)}; the default is arc")
    parser.add_argument("--chords", type=int, default=CHORDS, help=f"chords of the curve; the default is {CHORDS}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the plot of several runs; by default beside them")
    options = parser.parse_args(arguments)
    try:
        if options.curve not in CURVES:
            refused = nearest_name(options.curve, CURVES)
            raise ConfigurationError(f"Option --curve is a name; got {options.curve!r}: {refused}")
        if options.chords < 1:
            raise ConfigurationError(f"Option --chords is at least 1; got {options.chords}: give more.")
        if options.out is not None and (options.out.is_dir() or not options.out.absolute().parent.is_dir()):
            raise ConfigurationError(
                f"Option --out names a file in a directory that is there; got {str(options.out)!r}: choose one."
            )
        by_run = {}
        for directory in options.runs:
            by_run[str(directory)] = measure_finished(directory, options.curve, options.chords)
            print(expressivity_table(str(directory), by_run[str(directory)]), end="\n\n")
        if len(by_run) > 1:
            beside = Path(os.path.commonpath([path.absolute() for path in options.runs])) / "expressivity.png"
            out = options.out or beside
            draw_expressivity(out, by_run)
            print(f"The plot of all is {out}")
    except ConfigurationError as refusal:
        print(f"Refused: {refusal}", file=sys.stderr)
        return 2
    except CheckpointError as failure:
        print(f"Failed: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
