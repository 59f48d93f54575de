"""The runs of a sweep as jobs of Slurm, each on a machine of its own, by submitit.

    python run_seq2seq.py sweep.json --launcher slurm --jobs 8 \\
        --launcher-options '{"slurm_partition": "gpu", "timeout_min": 60, "gpus_per_node": 1}'

One job array, ``--jobs`` of it at once; options are those of submitit's ``AutoExecutor``. The folders of runs, their
locks and logs are those of ``seq2seq.running.jobs``, on a disk that all machines see. What submitit writes, such as
the output of a job that died before its run began, is in ``.slurm`` beside the run folders.

Ctrl-C cancels the jobs. A job that reaches its time limit or is preempted is requeued, and its run resumes.
"""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters import ConfigurationError
from adapters.validation import nearest_name
from seq2seq.experiment import Experiment
from seq2seq.running.jobs import Run, execute, outcome_of
from seq2seq.running.outcomes import Outcome

OPTION = "Option --launcher-options"
ONE_PROCESS = "each run is one process: see docs/running.md for a run on several machines"
RESERVED = {
    **dict.fromkeys(("nodes", "tasks_per_node", "slurm_nodes", "slurm_ntasks_per_node"), ONE_PROCESS),
    "slurm_array_parallelism": "write --jobs N",
}
"""Parameters of submitit that the launcher sets, each with what to do instead."""

POLL_INTERVAL = 2.0
"""Seconds between two looks at the jobs; submitit asks Slurm itself less often."""


@dataclass(frozen=True)
class SlurmJob:
    """One run in its job; submitit requeues it, as it is, at its time limit."""

    threads: int
    run: Run

    def __call__(self, cell: Experiment) -> int:
        return execute(cell, self.threads, self.run)

    def checkpoint(self, cell: Experiment) -> Any:
        import submitit

        return submitit.helpers.DelayedSubmission(self, cell)


@dataclass(frozen=True)
class SlurmLauncher:
    """Starts runs as jobs.

    Args:
        options: parameters of submitit's executor.
        jobs: the number of jobs at once; None for as many as Slurm allows.
        cluster: submitit's executor; "local" starts processes on this machine, for tests.

    Raises:
        ConfigurationError: submitit is not installed, there is no Slurm, or an option is not known.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    jobs: int | None = None
    cluster: str = "slurm"

    def __post_init__(self) -> None:
        self.executor(Path("."))

    def executor(self, folder: Path) -> Any:
        """submitit's executor with these options; nothing is written yet."""
        try:
            import submitit
        except ImportError:
            raise ConfigurationError(
                "Option --launcher slurm needs submitit; got an environment without it: pip install submitit."
            ) from None
        for key in self.options:
            if key in RESERVED:
                raise ConfigurationError(f"{OPTION} has {key!r}, which the launcher sets: {RESERVED[key]}.")
        parallel = {} if self.jobs is None else {"slurm_array_parallelism": self.jobs}
        try:
            executor = submitit.AutoExecutor(folder / ".slurm" / uuid.uuid4().hex[:8], cluster=self.cluster)
            executor.update_parameters(**{"name": "seq2seq", **self.options, **parallel})
        except RuntimeError as error:
            raise ConfigurationError(
                f"Option --launcher slurm needs a machine that submits jobs; got none ({error}): start it there, or "
                "use --jobs alone."
            ) from None
        except (NameError, TypeError, AssertionError, ValueError) as error:
            known = sorted({*executor._valid_parameters(), "slurm_partition", "slurm_account", "slurm_qos"})
            unknown = next((key for key in self.options if key not in known), "")
            raise ConfigurationError(
                f"{OPTION} has parameters of submitit's AutoExecutor; got {dict(self.options)} "
                f"({' '.join(str(error).split())}): {nearest_name(unknown, known)}"
            ) from None
        return executor

    def outcomes(
        self, cells: Sequence[Experiment], run: Run, show: Callable[[Sequence[Experiment]], None]
    ) -> Generator[Outcome]:
        """Submit every run and yield outcomes in the order in which the jobs end; the others are cancelled at an error.

        ``show`` is called with the runs whose jobs have not ended.
        """
        if not cells:
            return
        executor = self.executor(cells[0].run.directory.parent)
        started = time.perf_counter()
        job = SlurmJob(executor.parameters.get("cpus_per_task") or 1, run)
        submitted = dict(enumerate(zip(cells, submit(executor, job, cells), strict=True)))
        try:
            while submitted:
                ended = [number for number, (_, job) in submitted.items() if job.done()]
                for number in ended:
                    cell, job = submitted.pop(number)
                    yield outcome_of_job(cell, job, time.perf_counter() - started)
                show([cell for cell, _ in submitted.values()])
                if submitted and not ended:
                    time.sleep(POLL_INTERVAL)
        finally:
            for _, job in submitted.values():
                job.cancel(check=False)


def submit(executor: Any, job: SlurmJob, cells: Sequence[Experiment]) -> list[Any]:
    """Submit one job for each run.

    Raises:
        ConfigurationError: Slurm refuses them, as for a partition that it does not have. Nothing is left behind.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        return executor.map_array(job, cells)
    except (FailedJobError, FailedSubmissionError) as error:
        shutil.rmtree(executor.folder, ignore_errors=True)
        for above in list(executor.folder.parents)[:3]:  # .slurm, the sweep's folder, output_root
            with contextlib.suppress(OSError):  # it was there before
                above.rmdir()
        raise ConfigurationError(
            f"{OPTION} must describe a job that Slurm accepts; got an error from sbatch "
            f"({' '.join(str(error).split())}): correct them."
        ) from None


def outcome_of_job(cell: Experiment, job: Any, seconds: float) -> Outcome:
    """The outcome of a run whose job has ended; the seconds count from when it was submitted."""
    if job.exception() is None:
        return outcome_of(cell, job.result(), seconds)
    sentence = f"The job {job.job_id} ended without a result (state {job.state}): see {job.paths.stderr}."
    return outcome_of(cell, 1, seconds, sentence)


def read_launcher(name: str | None, options: str | None, jobs: int | None) -> SlurmLauncher | None:
    """The launcher that the command line asks for; None for processes of this machine.

    Raises:
        ConfigurationError: an option does not fit.
    """
    if name is None:
        if options is not None:
            raise ConfigurationError(f"{OPTION} belongs to --launcher slurm; got {options!r} alone: add it.")
        return None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError("Option --launcher starts each run by itself; got it under torchrun: leave one out.")
    try:
        values = json.loads(options or "{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigurationError(
            f'{OPTION} must be an object in JSON; got {options!r}: write for example {{"timeout_min": 60}}.'
        )
    return SlurmLauncher(values, jobs)
