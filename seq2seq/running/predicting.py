"""Predict the rows of a file with a finished run.

    python run_seq2seq.py predict outputs/rte new_rows.tsv
    python run_seq2seq.py predict outputs/mixture new_rows.jsonl --task rte --output answers.jsonl

Configuration and adapter are those of the run's folder; ``key=value`` sets a key, such as model_name_or_path where the
base model has moved. The file has the columns of the task's rows. If all have a target, the task's metrics are printed.
Predictions are written one JSON object per row, by default to <run folder>/predictions/<name of the file>.jsonl.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import adapters
from adapters import ConfigurationError
from adapters.tables import render_table
from seq2seq.configuration.reading import load_values, read_keys
from seq2seq.configuration.rules import check_ranges
from seq2seq.errors import refusing
from seq2seq.experiment import Experiment
from seq2seq.report.footnotes import Footnotes
from seq2seq.run_folder import RunFolder, write_text
from seq2seq.running.trial import check_by_trial
from seq2seq.tasks.metric_names import metric_name
from seq2seq.workload import Evaluation, Prepared

NOT_COMPILED = {"torch_compile": False, "torch_compile_backend": None, "torch_compile_mode": None}
"""A single pass over a file does not pay for compiling."""

SHOWN = 5
"""Predictions on the screen."""


class Predicted(NamedTuple):
    """What was predicted by the run of an experiment, and the file that has it."""

    experiment: Experiment
    evaluation: Evaluation
    output: Path


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="run_seq2seq.py predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("file", type=Path, help="rows to predict: tsv, csv, jsonl, json or parquet")
    parser.add_argument("overrides", nargs="*", default=(), metavar="key=value", help="keys of the run to set")
    parser.add_argument("--task", help="task of the rows, if the run has several")
    parser.add_argument("--output", type=Path, help="file to write")
    options = parser.parse_intermixed_args(arguments)
    predicted = predict(options.run, options.file, options.task, options.output, options.overrides)
    print(predictions_table(predicted))
    return 0


def predict(
    run: Path, file: Path, task: str | None = None, output: Path | None = None, overrides: Sequence[str] = ()
) -> Predicted:
    """Predict the rows of a file and write the predictions.

    Args:
        run: folder of a finished run.
        file: the rows, with the columns of the task; their targets may be missing.
        task: which task of a run of several they belong to.
        output: the jsonl file to write; None for one in the run folder.
        overrides: ``key=value``, as for a run.

    Raises:
        ConfigurationError: the run is not finished, or the file does not fit it; nothing was written.
    """
    folder = RunFolder(run.absolute())
    experiment = read_run(folder, overrides)
    output = folder.directory / "predictions" / f"{file.stem}.jsonl" if output is None else output.absolute()
    if output.is_dir() or output == file.absolute():
        raise ConfigurationError(
            f"Option --output must name a file to write; got {output}, which is "
            f"{'a directory' if output.is_dir() else 'the file to predict'}: choose another name."
        )
    with tempfile.TemporaryDirectory() as scratch:
        arguments = copy.copy(experiment.training_arguments())
        arguments.output_dir = scratch  # where a trainer makes a folder of checkpoints
        model = experiment.attach(experiment.load_model())
        with refusing("run", folder.adapter):
            adapters.fit_ranks(model, folder.adapter)
            adapters.load(model, folder.adapter)
        prepared = Prepared(model, experiment.workload.load_file(file, task, arguments), arguments)
        check_by_trial(experiment, prepared)
        evaluation = experiment.workload.evaluate(prepared, experiment.workload.make_trainer(prepared), "test")
    lines = [json.dumps(row, ensure_ascii=False) for rows in evaluation.rows.values() for row in rows]
    with refusing("output", output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, "\n".join(lines) + "\n")
    return Predicted(experiment, evaluation, output)


def read_run(folder: RunFolder, overrides: Sequence[str]) -> Experiment:
    """The configuration of a finished run, for prediction only."""
    if not folder.config.is_file() or not folder.adapter.is_dir():
        lacking = "an adapter: let the run finish" if folder.config.is_file() else "config.json: check the path"
        raise ConfigurationError(
            f"Predictions need the folder of a finished run; got {folder.directory} without {lacking}."
        )
    experiment = read_keys(load_values(folder.config, overrides))
    with refusing("run", folder.adapter):
        workload = experiment.workload.of_run(folder.adapter)
    experiment = replace(experiment, workload=workload, run=experiment.run.moved_to(folder.directory))
    check_ranges(experiment)
    untrained = {**experiment.training, "do_train": False, "report_to": "none", "load_best_model_at_end": False}
    return replace(experiment, training=untrained | {"eval_strategy": "no", **NOT_COMPILED})


def predictions_table(predicted: Predicted) -> str:
    """The first predictions, the metrics if there are any, and where everything is."""
    rows = [row for rows in predicted.evaluation.rows.values() for row in rows]
    columns = list(rows[0])
    cells = [[shortened(row[column]) for column in columns] for row in rows[:SHOWN]]
    table = render_table(f"{len(rows)} rows, the first {len(cells)}", columns, cells)
    return "\n\n".join([table, *metric_lines(predicted), f"Written to {predicted.output}"])


def metric_lines(predicted: Predicted) -> list[str]:
    """The metrics by their names, then what their footnotes say; nothing if targets are missing."""
    workload, metrics = predicted.experiment.workload, predicted.evaluation.metrics
    notes = Footnotes()
    values = [
        f"{metric_name(name)} {value}{notes.mark(workload.note(metrics, name))}"
        for name, value in workload.headline(metrics).items()
    ]
    below = "\n".join(f"{mark} {note}" for mark, note in notes.by_mark.items())
    return [text for text in (", ".join(values), below) if text]


def shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
