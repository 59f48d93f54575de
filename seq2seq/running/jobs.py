"""Several runs from one command, each in a fresh process, N of them at once.

    check_cells    checks every run completely before the first one starts; writes nothing
    run_cells      keeps finished runs, starts or resumes the others; a run that fails does not stop the others

A separate process gives each run its own peak memory and isolates a crash; failure.json in the run folder has the
reason. The processes are forked from one that has imported everything already, so a run does not pay for imports. What
a run prints goes to its log. Under torchrun the runs execute one after another in the processes that exist already, and
peak memory is that of all runs so far.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from multiprocessing import connection
from typing import Any, Protocol

import datasets
import torch
import transformers
from tqdm.auto import tqdm

from adapters import ConfigurationError
from seq2seq.experiment import Experiment
from seq2seq.run_folder import RunFolder, read_earlier
from seq2seq.run_lock import FolderInUseError, is_main_process, lock_path, owned, sentence_of_use
from seq2seq.running.outcomes import EXPECTED_ERRORS, Outcome, cell_name, sentence_of, sentence_of_status, write_failure
from seq2seq.running.preparation import prepare
from seq2seq.running.progress import latest_losses
from seq2seq.running.runner import run_experiment

CHECKED_BY_READING = ("experiment_name", "output_root", "seed", "learning_rate")
"""Keys that cannot be wrong once the configuration has been read; ``Workload.seeds`` are others."""

SHOW_INTERVAL = 1.0
"""Seconds between two looks at the logs of runs."""

STOP_TIMEOUT = 20.0
"""Seconds in which a worker has to stop."""

IN_USE = 3
"""Exit status of a worker whose run folder another process uses."""

Run = Callable[[Experiment], dict[str, Any]]


class Launcher(Protocol):
    """Starts runs elsewhere than in worker processes of this machine."""

    def outcomes(
        self, cells: Sequence[Experiment], run: Run, show: Callable[[Sequence[Experiment]], None]
    ) -> Generator[Outcome]:
        """Start the runs and yield their outcomes as they end; ``show`` gets those that have not ended."""


def check_jobs(jobs: int) -> None:
    """Check the option --jobs."""
    if jobs < 1:
        raise ConfigurationError(f"Option --jobs must be at least 1, the number of runs at once; got {jobs}: raise it.")
    if jobs > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError(
            f"Option --jobs must be 1 under torchrun, whose processes share each run; got {jobs}: leave it out."
        )


def check_cells(cells: Sequence[Experiment]) -> None:
    """Check every unfinished run: folder, rows, model and adapters; writes nothing.

    Raises:
        ConfigurationError: the first of them that is refused.
    """
    for cell in cells:
        if is_main_process() and lock_path(cell.run.directory).exists():
            with owned(cell.run.directory):
                pass  # no other process runs it
        RunFolder(cell.run.directory).check(cell)
        above = RunFolder(cell.run.directory.parent)
        if above.config.exists():
            raise ConfigurationError(
                f"Key 'experiment_name' of a sweep names a folder of runs; got {above.directory}, which is a run "
                "itself: choose another name."
            )
    checked = []
    with hide_dataset_bars():
        for cell in tqdm(cells, desc="check", leave=False, dynamic_ncols=True):
            folder = RunFolder(cell.run.directory)
            skipped = {*CHECKED_BY_READING, *cell.workload.seeds}
            decisive = {key: value for key, value in cell.to_dict().items() if key not in skipped}
            if decisive not in checked and not folder.is_finished(cell):
                prepare(cell, folder.adapter)
                checked.append(decisive)


@contextlib.contextmanager
def hide_dataset_bars() -> Generator[None]:
    """Hide the progress bars of ``datasets`` in the body, one for each split of each run."""
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def run_cells(
    cells: Sequence[Experiment], jobs: int = 1, run: Run = run_experiment, launcher: Launcher | None = None
) -> list[Outcome]:
    """Run what is not finished and return the outcomes in the order of ``cells``.

    Args:
        cells: the runs.
        jobs: the number of worker processes at once.
        run: what a worker does.
        launcher: starts the runs elsewhere instead of in worker processes, see ``seq2seq.running.slurm``.

    Raises:
        KeyboardInterrupt: the command was interrupted; the workers are stopped, and their runs resume next time.
    """
    waiting, outcomes = [], {}
    for cell in cells:
        refusal = refusal_of(cell)
        if refusal:
            outcomes[cell.run.directory] = Outcome(cell, "failed", None, refusal)
        elif RunFolder(cell.run.directory).is_finished(cell):
            outcomes[cell.run.directory] = Outcome(cell, "kept", RunFolder(cell.run.directory).read_result())
        else:
            waiting.append(cell)
    several_processes = int(os.environ.get("WORLD_SIZE", "1")) > 1
    hidden = not is_main_process()
    bar = tqdm(total=len(cells), initial=len(outcomes), desc="runs", dynamic_ncols=True, disable=hidden)

    def show(running: Sequence[Experiment]) -> None:
        losses = latest_losses(running)
        if losses != (bar.postfix or ""):
            bar.set_postfix_str(losses)

    if launcher is not None:
        finished = launcher.outcomes(waiting, run, show)
    else:
        finished = run_here(waiting, run) if several_processes else run_in_workers(waiting, jobs, run, show)
    with contextlib.closing(finished), bar:
        for outcome in finished:
            outcomes[outcome.experiment.run.directory] = outcome
            if outcome.state == "failed":
                bar.write(f"{cell_name(outcome.experiment)} failed: {outcome.sentence}", file=sys.stderr)
            bar.update()
        bar.set_postfix_str("")
    return [outcomes[cell.run.directory] for cell in cells]


def refusal_of(cell: Experiment) -> str | None:
    """The sentence about what another command has put into the folder since the runs were checked, or None."""
    try:
        RunFolder(cell.run.directory).check(cell)
    except ConfigurationError as refusal:
        return str(refusal)
    return None


def run_here(cells: Sequence[Experiment], run: Run) -> Generator[Outcome]:
    """Run them one after the other in this process."""
    for cell in cells:
        started = time.perf_counter()
        try:
            result = run(cell)
        except Exception as error:
            traceback.print_exc()
            if is_main_process():
                write_failure(cell, sentence_of(error))
            yield Outcome(cell, "failed", None, sentence_of(error), time.perf_counter() - started)
        else:
            yield Outcome(cell, "finished", result, "", time.perf_counter() - started)


def run_in_workers(
    cells: Sequence[Experiment], jobs: int, run: Run, show: Callable[[Sequence[Experiment]], None]
) -> Generator[Outcome]:
    """Run each in a fresh process; yields outcomes in the order in which the processes end.

    ``show`` is called with the runs that are going on, every SHOW_INTERVAL seconds.
    """
    context = multiprocessing.get_context("forkserver")
    workloads = dict.fromkeys(type(cell.workload).__module__ for cell in cells)
    context.set_forkserver_preload([__name__, "matplotlib.figure", *workloads])
    threads = max(1, torch.get_num_threads() // jobs)
    waiting, working = list(cells), {}
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                cell = waiting.pop(0)
                worker = context.Process(target=work, args=(cell, threads, run))
                worker.start()
                working[worker.sentinel] = (worker, cell, time.perf_counter())
            ended = connection.wait(working, SHOW_INTERVAL)
            show([cell for _, cell, _ in working.values()])
            for sentinel in ended:
                worker, cell, started = working.pop(sentinel)
                worker.join()
                yield outcome_of(cell, worker.exitcode, time.perf_counter() - started)
    finally:
        stop([worker for worker, _, _ in working.values()])


def stop(workers: Sequence[multiprocessing.Process]) -> None:
    """Ask workers to stop, and kill those that do not."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(STOP_TIMEOUT)
        if worker.is_alive():
            worker.kill()
            worker.join()


def work(cell: Experiment, threads: int, run: Run) -> None:
    """Execute one run in a worker, and exit with its status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    signal.signal(signal.SIGTERM, interrupted)
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.exit(execute(cell, threads, run))


def execute(cell: Experiment, threads: int, run: Run) -> int:
    """Execute one run in a process of its own: output goes to its log, a failure to failure.json.

    Returns:
        The exit status: 0, 1 or ``IN_USE``, or 130 if it was interrupted.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with owned(cell.run.directory):
            output_to_log(cell)
            run(replace(cell, training={**cell.training, "disable_tqdm": True}))
    except KeyboardInterrupt:
        return 130
    except FolderInUseError:
        return IN_USE
    except Exception as error:
        if not isinstance(error, EXPECTED_ERRORS):
            traceback.print_exc()
        write_failure(cell, sentence_of(error))
        return 1
    return 0


def interrupted(signal_number: int, frame: Any) -> None:
    """Stop as if by Ctrl-C, so that everything open is closed."""
    raise KeyboardInterrupt


def end_with_parent() -> None:
    """Stop this process when its parent has ended."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def output_to_log(cell: Experiment) -> None:
    """Redirect stdout and stderr to the run's log, also for libraries and child processes."""
    folder = RunFolder(cell.run.directory)
    folder.open(cell)
    with open(folder.log, "a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


def outcome_of(cell: Experiment, status: int, seconds: float, sentence: str | None = None) -> Outcome:
    """The outcome of a worker.

    Args:
        cell: the run.
        status: the exit status; negative for the signal that killed it.
        seconds: its wall-clock time.
        sentence: what is known of a worker that ended without a status; then ``status`` does not count.
    """
    folder = RunFolder(cell.run.directory)
    if status == 0:
        return Outcome(cell, "finished", folder.read_result(), "", seconds)
    if status == IN_USE:
        return Outcome(cell, "failed", None, sentence_of_use(folder.directory), seconds)
    if refusal := refusal_of(cell):
        return Outcome(cell, "failed", None, refusal, seconds)
    if sentence is None and folder.failure.is_file():
        sentence = read_earlier(folder.failure, dict).get("sentence", sentence_of_status(status))
    else:
        sentence = sentence or sentence_of_status(status)
        write_failure(cell, sentence)
    return Outcome(cell, "failed", None, sentence, seconds)
