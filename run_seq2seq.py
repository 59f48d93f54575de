"""Run one experiment.

    python run_seq2seq.py configs/quickstart.json
    python run_seq2seq.py configs/quickstart.json experiment_name=rank4 adapter.rank=4 learning_rate=0.003
    torchrun --nproc_per_node 2 run_seq2seq.py configs/quickstart.json

Everything is written to <output_root>/<experiment_name>/. Exit status 2 means that the configuration was refused: the
last line says which key, what was given and what is allowed, and nothing was written. A run that was stopped or killed
resumes when the same command is given again.
"""

import argparse
import logging
import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment that the command line names and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a JSON file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to set in it, by dotted name")
    options = parser.parse_args(arguments)

    import torch
    import transformers

    from adapters import CheckpointError, ConfigurationError, MergeError
    from seq2seq.configuration import load_experiment
    from seq2seq.experiment import run_experiment
    from seq2seq.report import result_table

    transformers.utils.logging.disable_progress_bar()
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)  # the rest goes to the run's log
    logging.basicConfig(handlers=[screen], format="%(message)s")
    try:
        experiment = load_experiment(options.config, options.overrides)
        torch.set_flush_denormal(True)  # numbers below 1e-38, as of a diverging model, take a CPU a hundred times as long
        result = run_experiment(experiment)
    except ConfigurationError as refusal:
        print(f"Refused: {refusal}", file=sys.stderr)
        return 2
    except (CheckpointError, MergeError) as failure:
        print(f"Failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command resumes from the last checkpoint.", file=sys.stderr)
        return 130
    finally:
        torch.set_flush_denormal(False)
    if int(os.environ.get("RANK", "0")) == 0:
        print(result_table(result, experiment.run.directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
