"""Write a factorized model as a plain one, with dense weights, which transformers loads without this project.

    python -m adapters.factorized.export outputs/gpt2_81m_start outputs/gpt2_81m_dense     a factorized model
    python -m adapters.factorized.export outputs/gpt2_81m outputs/gpt2_81m_dense           a run with do_export

Exit status 2: refused, and nothing was written.
"""

import argparse
import sys
from pathlib import Path

import transformers

from adapters.commands import exit_status
from adapters.factorized.folders import load_model, load_tokenizer, write_model
from adapters.factorized.replacement import densify
from adapters.saved.folder import check_is_new
from adapters.validation import ConfigurationError

IN_RUN = "factorized"
"""The folder of the model in that of a run with do_export."""


def export(source: Path, destination: Path) -> None:
    """Write the dense model of a folder with a factorized one, and its tokenizer.

    Raises:
        ConfigurationError, CheckpointError: one sentence about the reason. Nothing is written.
    """
    check_is_new(destination)
    if not source.is_dir():
        raise ConfigurationError(f"An export is made of a folder; got {source}, which is none: check the path.")
    if (source / IN_RUN / "config.json").is_file():
        source = source / IN_RUN
    model = densify(load_model(str(source)))
    write_model(model, load_tokenizer(str(source)), destination)


def main(arguments: list[str] | None = None) -> int:
    """Export and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m adapters.factorized.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="a folder with a factorized model, or a run with do_export")
    parser.add_argument("destination", type=Path, help="a new or empty folder")
    options = parser.parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    status = exit_status(lambda: export(options.source, options.destination), options.destination)
    if status == 0:
        print(options.destination)
    return status


if __name__ == "__main__":
    sys.exit(main())
