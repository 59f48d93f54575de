"""Measure the expressivity of finished runs: the adapter as initialised against the adapter as saved.

    python -m seq2seq.expressivity outputs/rte_tt_lora
    python -m seq2seq.expressivity outputs/rte_tt_lora outputs/rte_bottleneck --curve circle --out comparison.png

Writes expressivity.json and expressivity.png into each run folder; of several runs also one plot that compares them.
Exit status 2: a run was refused; 1: its adapter cannot be read.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import adapters
from adapters import CheckpointError, ConfigurationError
from adapters.validation import nearest_name
from seq2seq.configuration.reading import load_values, read_experiment
from seq2seq.extras.expressivity import draw_expressivity, expressivity_table, measure, record
from seq2seq.extras.trajectories import CHORDS, CURVES
from seq2seq.run_folder import RunFolder
from seq2seq.running.preparation import prepare


def measure_finished(directory: Path, curve: str, chords: int) -> dict[str, Any]:
    """Measure a run's adapter as initialised and as saved, and write the record into the run folder.

    Raises:
        ConfigurationError: the folder is not that of a finished run, or its configuration is refused.
        CheckpointError: the saved adapter cannot be read.
    """
    folder = RunFolder(directory)
    if not folder.config.is_file() or not folder.adapter.is_dir():
        missing = folder.adapter if folder.config.is_file() else folder.config
        raise ConfigurationError(
            f"Expressivity can be measured only for runs that have trained; got {directory}, which lacks "
            f"{missing.name}: name the folder of a finished run."
        )
    experiment = read_experiment({**load_values(folder.config), "log_to_wandb": False})
    prepared = prepare(experiment, trained=None)  # the adapter as initialised
    before = measure(experiment, prepared, curve, chords)
    adapters.fit_ranks(prepared.model, folder.adapter)
    adapters.load(prepared.model, folder.adapter)
    return record(directory, before, measure(experiment, prepared, curve, chords), curve, chords)


def main(arguments: list[str] | None = None) -> int:
    """Measure the runs that the command line names and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.expressivity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--curve", default="arc", help=f"one of {', '.join(CURVES)}; the default is arc")
    parser.add_argument("--chords", type=int, default=CHORDS, help=f"chords of the curve; the default is {CHORDS}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the plot of several runs; by default next to them")
    options = parser.parse_args(arguments)
    try:
        if options.curve not in CURVES:
            refused = nearest_name(options.curve, CURVES)
            raise ConfigurationError(f"Option --curve must be a known name; got {options.curve!r}: {refused}")
        if options.chords < 1:
            raise ConfigurationError(f"Option --chords must be at least 1; got {options.chords}: give more.")
        if options.out is not None and (options.out.is_dir() or not options.out.absolute().parent.is_dir()):
            raise ConfigurationError(
                f"Option --out must name a file in an existing directory; got {str(options.out)!r}: choose one."
            )
        by_run = {}
        for directory in options.runs:
            by_run[str(directory)] = measure_finished(directory, options.curve, options.chords)
            print(expressivity_table(str(directory), by_run[str(directory)]), end="\n\n")
        if len(by_run) > 1:
            beside = Path(os.path.commonpath([path.absolute() for path in options.runs])) / "expressivity.png"
            out = options.out or beside
            draw_expressivity(out, by_run)
            print(f"The combined plot is {out}")
    except ConfigurationError as refusal:
        print(f"Refused: {refusal}", file=sys.stderr)
        return 2
    except CheckpointError as failure:
        print(f"Failed: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
