"""Run one experiment, or many.

    python run_seq2seq.py configs/quickstart.json
    python run_seq2seq.py configs/quickstart.json experiment_name=rank4 adapter.rank=4 learning_rate=0.003
    python run_seq2seq.py configs/quickstart.json "sweep.adapter.rank=[2,4,8]" "sweep.seed=[0,1,2]" --jobs 2
    python run_seq2seq.py configs/demo/*.json --jobs 4
    python run_seq2seq.py configs/demo/*.json --launcher slurm --launcher-options '{"timeout_min": 60}'
    torchrun --nproc_per_node 2 run_seq2seq.py configs/quickstart.json
    python run_seq2seq.py predict outputs/quickstart rows.tsv
    python run_seq2seq.py --list        what a configuration can name: kinds, formats, tasks, metrics, baselines

Installed by pip, the command is ``seq2seq-run``, and files of the project's configs/ are found by name from any
directory: seq2seq-run quickstart.

Everything is written to <output_root>/<experiment_name>/. Exit status 2 means that the configuration was refused: the
last line has the key, what was given and how to fix it, and nothing was written. A run that was stopped or killed
resumes when the same command is given again.

Several files, or a file with a sweep, make one list of runs. All are checked before the first one starts. Each runs in
its own process, --jobs of them at once, or as a job of Slurm, see seq2seq/running/slurm.py; finished runs are kept. A
run that fails does not stop the others; the exit status is then 1.
"""

import argparse
import logging
import sys

AT_IMPORT = ("bitsandbytes", "torchao", "torch.utils._pytree")
"""Loggers that warn, when transformers imports these packages, of extensions that no run uses."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for name in AT_IMPORT:
        logging.getLogger(name).setLevel(logging.ERROR)
    options = None if arguments[:1] == ["predict"] else read_options(arguments)  # --list imports them

    import torch
    import transformers

    from adapters import CheckpointError, ConfigurationError, MergeError

    transformers.utils.logging.disable_progress_bar()
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)  # the rest goes to the run's log
    logging.basicConfig(handlers=[screen], format="%(message)s")
    try:
        # values below 1e-38, as in a diverging model, slow a CPU down a hundredfold
        torch.set_flush_denormal(True)
        return predict(arguments[1:]) if options is None else run(options)
    except ConfigurationError as refusal:
        print(f"Refused: {refusal}", file=sys.stderr)
        return 2
    except (CheckpointError, MergeError) as failure:
        print(f"Failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to continue from the last checkpoints.", file=sys.stderr)
        return 130
    finally:
        torch.set_flush_denormal(False)


class ListNames(argparse.Action):
    """Print what a configuration can name, and exit."""

    def __call__(self, parser, *_) -> None:
        from seq2seq.listing import list_names

        print(list_names())
        parser.exit()


class PrintVersion(argparse.Action):
    """Print the version, and exit."""

    def __call__(self, parser, *_) -> None:
        from t3nsor import __version__

        print(f"tensorized-adapters {__version__}")
        parser.exit()


def read_options(arguments: list[str]) -> argparse.Namespace:
    """The configuration files, overrides and options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a JSON file")
    more = "more files; keys to set, by dotted name"
    parser.add_argument("more", nargs="*", default=(), metavar="config | key=value", help=more)
    parser.add_argument("--jobs", type=int, metavar="N", help="number of runs at once: 1, or with slurm all of them")
    parser.add_argument("--launcher", choices=("slurm",), help="start each run as a job instead of a process")
    parser.add_argument("--launcher-options", metavar="JSON", help="its options: partition, time limit, GPUs, ...")
    parser.add_argument("--list", nargs=0, action=ListNames, help="print what a configuration can name")
    parser.add_argument("--version", nargs=0, action=PrintVersion, help="print the version")
    return parser.parse_intermixed_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Run one experiment or several, and print the table of the result."""
    from seq2seq.configuration.sweep import load_cells
    from seq2seq.report import result_table
    from seq2seq.run_lock import is_main_process
    from seq2seq.running.jobs import check_cells, check_jobs, run_cells
    from seq2seq.running.outcomes import cells_table, report_sweeps
    from seq2seq.running.runner import run_experiment
    from seq2seq.running.slurm import read_launcher

    more_configs = [text for text in options.more if "=" not in text and text.endswith(".json")]
    overrides = [text for text in options.more if text not in more_configs]
    jobs = 1 if options.jobs is None else options.jobs
    check_jobs(jobs)
    launcher = read_launcher(options.launcher, options.launcher_options, options.jobs)
    cells = load_cells([options.config, *more_configs], overrides)
    if len(cells) > 1 or launcher is not None:
        check_cells(cells)
        outcomes = run_cells(cells, jobs, launcher=launcher)
        if is_main_process():
            print("\n\n".join([cells_table(outcomes), *report_sweeps(outcomes)]))
        return int(any(outcome.state == "failed" for outcome in outcomes))
    result = run_experiment(cells[0])
    if is_main_process():
        print(result_table(cells[0], result))
    return 0


def predict(arguments: list[str]) -> int:
    """Predict the rows of a file with a finished run; see ``seq2seq.running.predicting``."""
    from seq2seq.running.predicting import main

    return main(arguments)


if __name__ == "__main__":
    sys.exit(main())
