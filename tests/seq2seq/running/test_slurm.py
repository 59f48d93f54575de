"""Runs as jobs: submitit's local executor runs them as it does on a cluster, in processes of their own."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest
import submitit

from adapters import ConfigurationError
from run_seq2seq import main
from seq2seq.configuration.reading import read_experiment
from seq2seq.configuration.sweep import expand
from seq2seq.run_folder import RunFolder
from seq2seq.run_lock import owned
from seq2seq.running import slurm
from seq2seq.running.jobs import run_cells
from seq2seq.running.slurm import SlurmJob, SlurmLauncher, read_launcher

ROOT = Path(__file__).parents[3]
STUB = """
import os, signal
from seq2seq.run_folder import RunFolder

def end_in_each_way(experiment):
    seed = experiment.training["seed"]
    print("on the screen, of", seed, flush=True)
    if seed == 1:
        raise ValueError("no\\nluck")
    if seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    folder = RunFolder(experiment.run.directory)
    folder.open(experiment)
    described = {"task": "stub", "model": "stub", "adapter": [], "parameters": {"trainable_parameters": seed}}
    folder.finish({**described, "metrics": {"test": {"average_metrics": seed / 10}}, "baselines": {}})
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Runs that take no time, in a module that jobs can import."""
    (tmp_path / "stubbed_jobs.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    yield importlib.import_module("stubbed_jobs")
    del sys.modules["stubbed_jobs"]


@pytest.fixture
def cells(values):
    """Four runs that differ in their seed, which are not to evaluate anything."""
    values |= {"sweep": {"seed": [0, 1, 2, 3]}, "do_eval": False, "do_predict": False}
    return [read_experiment(cell) for cell in expand(values)]


@pytest.mark.slow
def test_outcomes_are_those_of_processes_of_this_machine(cells, stub, monkeypatch):
    monkeypatch.setattr(slurm, "POLL_INTERVAL", 0.1)
    launcher = SlurmLauncher({"timeout_min": 5}, cluster="local")
    with owned(cells[3].run.directory):
        outcomes = run_cells(cells, run=stub.end_in_each_way, launcher=launcher)
    assert [outcome.experiment for outcome in outcomes] == cells
    assert [outcome.state for outcome in outcomes] == ["finished", "failed", "failed", "failed"]
    assert outcomes[0].result["metrics"] == {"test": {"average_metrics": 0.0}}
    assert outcomes[1].sentence == "ValueError: no luck"
    assert "ended without a result" in outcomes[2].sentence
    assert "used by process" in outcomes[3].sentence
    folder = RunFolder(cells[1].run.directory)
    assert "on the screen, of 1" in folder.log.read_text()
    assert json.loads(folder.failure.read_text())["sentence"] == "ValueError: no luck"
    assert [outcome.state for outcome in run_cells(cells[:1], run=stub.end_in_each_way, launcher=launcher)] == ["kept"]


class Jobs:
    """In place of the executor: jobs that never end, and which of them are cancelled."""

    def __init__(self):
        self.cancelled, self.parameters = [], {}

    def map_array(self, function, cells):
        return [self for _ in cells]

    def done(self):
        return False

    def cancel(self, check):
        self.cancelled.append(check)


def test_interrupted_command_cancels_its_jobs(cells, monkeypatch):
    jobs = Jobs()
    monkeypatch.setattr(SlurmLauncher, "executor", lambda self, folder: jobs)

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, launcher=SlurmLauncher())
    assert jobs.cancelled == [False] * 4


def test_job_at_its_time_limit_is_submitted_again_as_it_is(cells):
    job = SlurmJob(1, main)
    again = job.checkpoint(cells[0])
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert (again.function, again.args) == (job, (cells[0],))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("[1]", ["JSON", "[1]", "timeout_min"]),
        ("{", ["JSON", "timeout_min"]),
        ('{"nodes": 2}', ["nodes", "docs/running.md"]),
        ('{"slurm_nodes": 2}', ["slurm_nodes", "docs/running.md"]),
        ('{"slurm_ntasks_per_node": 2}', ["slurm_ntasks_per_node", "docs/running.md"]),
        ('{"slurm_array_parallelism": 2}', ["slurm_array_parallelism", "--jobs"]),
        ('{"timeout": 2}', ["timeout", "timeout_min"]),
        ('{"timeout_min": "long"}', ["timeout_min", "long"]),
    ],
)
def test_wrong_options_are_refused(options, said, monkeypatch):
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    with pytest.raises(ConfigurationError) as refusal:
        read_launcher("slurm", options, None)
    assert [word for word in said if word not in str(refusal.value)] == []


def test_options_reach_submitit(monkeypatch):
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    launcher = read_launcher("slurm", '{"timeout_min": 60, "slurm_partition": "gpu", "gpus_per_node": 1}', 3)
    parameters = launcher.executor(Path("/tmp")).parameters
    assert {"time": 60, "partition": "gpu", "gpus_per_node": 1, "array_parallelism": 3}.items() <= parameters.items()


def test_command_is_refused_before_anything_is_written(values, tmp_path, capsys):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values))
    assert main([str(file), "--launcher-options", "{}"]) == 2
    assert "--launcher slurm" in capsys.readouterr().err
    assert main([str(file), "--launcher", "slurm"]) == 2
    assert "srun" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json"}
    assert not Path(values["output_root"]).exists()


SBATCH = """#!/bin/sh
echo 'sbatch: error: invalid partition specified: gup' >&2
exit 1
"""


def test_a_job_that_slurm_refuses_is_a_sentence_and_leaves_nothing(values, tmp_path, monkeypatch, capsys):
    (tmp_path / "bin").mkdir()
    for name, script in {"srun": "#!/bin/sh\n", "sbatch": SBATCH}.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values))
    options = ["--launcher", "slurm", "--launcher-options", '{"slurm_partition": "gup"}']
    assert main([str(file), "sweep.seed=[0,1]", *options]) == 2
    said = capsys.readouterr().err
    assert "--launcher-options" in said
    assert "invalid partition specified: gup" in said
    assert not Path(values["output_root"]).exists()


def test_cpus_of_a_job_are_its_threads(cells, monkeypatch):
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    given = []

    def submit(executor, job, cells):
        given.append(job.threads)
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "submit", submit)
    for options in ({"cpus_per_task": 3}, {"slurm_cpus_per_task": 4}, {}):
        with pytest.raises(KeyboardInterrupt):
            run_cells(cells, launcher=SlurmLauncher(options))
    assert given == [3, 4, 1]
