"""Replace weights of a causal language model by tensor networks and write the result as a new folder.

    python -m adapters.factorized gpt2 outputs/gpt2_81m --first-shape 768 768
    python -m adapters.factorized gpt2 outputs/gpt2_tt --format tensor_train --rank 64
    python -m adapters.factorized smollm2 outputs/half --format low_rank --budget .5 --whiten full --calibration a.txt
    python -m adapters.factorized smollm2 outputs/stacked --config factorization.json --calibration a.txt

The report is printed before anything is written; --report-only ends there. --config is a JSON file with a factorization
or a list of them, see FactorizedConfig. Exit status 2: refused, and nothing was written.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import transformers

from adapters.commands import at_least, exit_status
from adapters.factorized.configuration import EMBEDDING, FEED_FORWARD, as_factorizations
from adapters.factorized.folders import load_model, load_tokenizer, windows, write_model
from adapters.factorized.replacement import plan_factorization
from adapters.saved.folder import check_is_new
from adapters.validation import ConfigurationError

FIELDS = ("format", "first_shape", "factors", "rank", "d", "budget", "allocation", "start", "whiten", "layers")
"""The fields of a configuration that have an option of their own."""
PATTERN = set("*+?|()[]^$\\")
"""What a regular expression has and a name has not."""
TARGETS = 'names or roles, a regular expression, or "embedding"; by default "feed_forward"'


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m adapters.factorized", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("model", help="a folder, or the name of a model on the hub")
    made.add_argument("destination", type=Path, help="a new or empty folder")
    made.add_argument("--config", type=Path, help="a JSON file; excludes the other fields")
    made.add_argument("--target-modules", nargs="+", help=TARGETS)
    made.add_argument("--format", help="kronecker (by default), tensor_train, tensor_ring, low_rank or searched")
    made.add_argument("--first-shape", nargs=2, type=int, metavar=("ROWS", "COLUMNS"), help="of the first factor")
    made.add_argument("--factors", type=int, help="Kronecker products")
    made.add_argument("--rank", type=int, help="of a train or of low rank")
    made.add_argument("--d", type=int, help="cores of a train")
    made.add_argument("--budget", type=float, help="share of the parameters of the replaced weights, instead of a rank")
    made.add_argument("--allocation", help="of the budget: uniform (by default) or error")
    made.add_argument("--layers", nargs="+", type=int, help="blocks, from 0; by default all")
    made.add_argument("--start", help="decomposition (by default), norm_corrected, pruned or random")
    made.add_argument("--whiten", help="none (by default), kronecker or full; the last two need --calibration")
    made.add_argument("--calibration", type=Path, help="a text file")
    made.add_argument("--tokens", type=at_least(2), default=65536, help="of the calibration (65,536 by default)")
    made.add_argument("--held-out", type=Path, help="a text for the errors; by default what follows the calibration")
    made.add_argument("--held-out-tokens", type=at_least(2), default=16384, help="16,384 by default")
    made.add_argument(
        "--window", type=at_least(2), default=1024, help="tokens of one pass (1,024 by default, or all positions)"
    )
    made.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of the model")
    made.add_argument("--report-only", action="store_true", help="write nothing")
    return made


def configuration(options: argparse.Namespace) -> Any:
    """The configuration that the options give."""
    fields = {key: getattr(options, key) for key in (*FIELDS, "target_modules") if getattr(options, key) is not None}
    if options.config is None:
        match fields.get("target_modules"):
            case [single] if single in (EMBEDDING, FEED_FORWARD) or PATTERN & set(single):
                fields["target_modules"] = single
        return fields
    if fields:
        raise ConfigurationError(
            f"Option --config excludes the fields that it holds; got {', '.join(fields)} too: write them into the file."
        )
    try:
        return json.loads(options.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"Option --config is a JSON file; got {options.config}: {error}.") from error


def run(options: argparse.Namespace) -> None:
    """Factorize, report and write."""
    config = as_factorizations(configuration(options))
    check_is_new(options.destination)
    model, tokenizer = load_model(options.model, options.dtype), load_tokenizer(options.model)
    calibration = held_out = None
    if options.held_out is not None and options.calibration is None:
        raise ConfigurationError(
            f"Option --held-out needs a calibration; got {options.held_out} without one: add --calibration."
        )
    window = min(options.window, getattr(model.config, "max_position_embeddings", None) or options.window)
    if options.calibration is not None:
        if tokenizer is None:
            raise ConfigurationError(
                f"A calibration needs the tokenizer of the model; got {options.model!r} without one: add its files."
            )
        calibration = windows(options.calibration, tokenizer, 0, options.tokens, window)
        text, first = (options.held_out, 0) if options.held_out else (options.calibration, options.tokens)
        held_out = windows(text, tokenizer, first, options.held_out_tokens, window)
    plan = plan_factorization(model, config, calibration)
    print(plan.report(held_out))
    if not options.report_only:
        write_model(plan.apply(), tokenizer, options.destination)
        print(f"\n{options.destination}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = parser().parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    return exit_status(lambda: run(options), options.destination)


if __name__ == "__main__":
    sys.exit(main())
