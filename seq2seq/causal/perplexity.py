"""Score a text from the terminal.

    python -m seq2seq.causal.perplexity outputs/run wikitext.txt                  a run, with its adapter
    python -m seq2seq.causal.perplexity path/to/model wikitext.txt --window 1024 --stride 512
    python -m seq2seq.causal.perplexity HuggingFaceTB/SmolLM2-135M wiki103 --max-tokens 50000 --json

A run's folder gives window, stride and the place of the begin-of-sequence token; an option overrides it. The table has
perplexity, bits per byte, log-likelihood per token and its standard error; ``seq2seq.causal.windows`` has the
definitions.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import TrainingArguments

import adapters
from adapters import CheckpointError, ConfigurationError
from adapters.commands import at_least
from adapters.tables import render_table
from seq2seq.causal.data import load_text
from seq2seq.causal.trainer import make_trainer
from seq2seq.causal.windows import Bos
from seq2seq.causal.workload import CausalWorkload
from seq2seq.errors import refusing
from seq2seq.experiment import Experiment, RunArguments
from seq2seq.run_folder import RunFolder
from seq2seq.running.predicting import read_run
from seq2seq.tasks.metric_names import metric_name
from seq2seq.workload import Prepared

BATCH = 8
"""Windows that are read at once; their logits are computed in parts."""


def perplexity(source: str, text: str, options: dict[str, Any], limit: int | None = None) -> dict[str, float]:
    """The metrics of a text.

    Args:
        source: a run's folder, or a model's folder or name.
        text: a file or a data set, as in the key ``corpus``.
        options: keys of the workload that replace those of the run.
        limit: the first tokens that are scored; None for all.

    Raises:
        ConfigurationError, CheckpointError: one sentence about the reason.
    """
    experiment, adapter = described(source)
    workload = replace(experiment.workload, **options)
    if workload.stride is not None and workload.stride >= workload.window:
        raise ConfigurationError(
            f"Option --stride must be less than the window; got {workload.stride} and {workload.window}: lower it."
        )
    data = load_text(workload, text, "file", limit)
    model = experiment.load_model()
    if adapter is not None:
        with refusing("run", adapter):
            adapters.load(model, adapter)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            report_to="none",
            per_device_eval_batch_size=BATCH,
            use_cpu=not torch.accelerator.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        return make_trainer(workload, Prepared(model, data, arguments)).score_text("test")


def described(source: str) -> tuple[Experiment, Path | None]:
    """The experiment of a run and its adapter, or one of a model as it is.

    Raises:
        ConfigurationError: the run is not finished, or of another workload.
    """
    folder = RunFolder(Path(source).absolute())
    if not folder.metrics.is_file():
        workload = CausalWorkload(model_name_or_path=source)
        return Experiment(RunArguments(experiment_name="perplexity"), workload, (), (), {"seed": 0}), None
    experiment = read_run(folder, ())
    if not isinstance(experiment.workload, CausalWorkload):
        raise ConfigurationError(
            f"A text is scored by a model that continues texts; got {source}, a run of the workload "
            f"{experiment.workload.name!r}: give a run of the workload 'causal', or a model."
        )
    return experiment, folder.adapter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.causal.perplexity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lowest = CausalWorkload.ranges
    parser.add_argument("source", metavar="run-or-model", help="a run's folder, or a model's folder or name")
    parser.add_argument("text", help="a text file, rows with a column 'text', or a data set such as wiki103")
    parser.add_argument("--window", type=at_least(lowest["window"][0]), help="tokens that the model reads at once")
    parser.add_argument("--stride", type=at_least(lowest["stride"][0]), help="tokens between the starts of two windows")
    parser.add_argument("--bos", choices=get_args(Bos), help="where the begin-of-sequence token is")
    parser.add_argument("--max-tokens", type=at_least(1), help="score the first tokens only")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    options = {key: getattr(given, key) for key in ("window", "stride", "bos") if getattr(given, key) is not None}
    try:
        found = perplexity(given.source, given.text, options, given.max_tokens)
    except (ConfigurationError, CheckpointError) as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(found))
    else:
        rows = [[metric_name(name), f"{value:.4f}"] for name, value in found.items()]
        print(render_table(f"{given.text}, {given.source}", ["", "value"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
