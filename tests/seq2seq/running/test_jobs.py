"""Many runs by one command: what is kept, resumed and failed, in real worker processes with stubbed and tiny runs."""

import importlib
import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from adapters import ConfigurationError
from run_seq2seq import main
from seq2seq.configuration.reading import read_experiment
from seq2seq.configuration.sweep import expand
from seq2seq.run_folder import RunFolder
from seq2seq.running import jobs
from seq2seq.running.jobs import check_cells, run_cells
from seq2seq.running.outcomes import sentence_of_status
from seq2seq.running.progress import latest_losses
from tests.processes import started

STUB = """
import json, logging, multiprocessing, os, signal, threading
import torch
from seq2seq.run_folder import RunFolder
from seq2seq.run_log import held_records, logging_to

def result(seed):
    metrics = {"test": {"average_metrics": seed / 10}}
    described = {"task": "stub", "model": "stub", "adapter": [], "parameters": {"trainable_parameters": seed}}
    return {**described, "metrics": metrics, "baselines": {}}

def finish(experiment):
    folder = RunFolder(experiment.run.directory)
    folder.open(experiment)
    (experiment.run.directory / "process.txt").write_text(f"{os.getpid()} {torch.get_num_threads()}")
    folder.finish(result(experiment.training["seed"]))

def end_in_each_way(experiment):
    seed = experiment.training["seed"]
    print("on the screen, of", seed, flush=True)
    if seed == 1:
        raise ValueError("no\\nluck")
    if seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 3:
        os._exit(7)
    finish(experiment)

def log_a_loss(experiment):
    folder = RunFolder(experiment.run.directory)
    folder.open(experiment)
    with held_records() as held:
        values = json.dumps({"train/loss": 0.5 + experiment.training["seed"]})
    with logging_to(folder.log, held):
        logging.getLogger("seq2seq.running.tracking").info("step %d: %s", 20, values)
    while not (experiment.run.directory.parent / "seen").exists():
        threading.Event().wait(0.05)
    folder.finish(result(experiment.training["seed"]))

def interrupt(experiment):
    (experiment.run.directory / "process.txt").write_text(str(os.getpid()))
    os.kill(multiprocessing.parent_process().pid, signal.SIGINT)
    while not threading.Event().wait(0.05):  # one long wait could begin just after the answer has come
        pass
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs that take no time, in a module that workers can import."""
    (tmp_path / "stubbed_runs.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("stubbed_runs")
    del sys.modules["stubbed_runs"]


@pytest.fixture
def cells(values: dict) -> list:
    """Five runs that differ in their seed, which are not to evaluate anything."""
    values |= {"sweep": {"seed": [0, 1, 2, 3, 4]}, "do_eval": False, "do_predict": False}
    return [read_experiment(cell) for cell in expand(values)]


def test_the_bar_shows_the_latest_losses_of_the_runs_that_go_on(cells, stub, monkeypatch, capsys):
    def notice(running):
        losses = latest_losses(running)
        if losses.count("loss") == 2:
            (cells[0].run.directory.parent / "seen").touch()
        return losses

    monkeypatch.setattr(jobs, "SHOW_INTERVAL", 0.05)
    monkeypatch.setattr(jobs, "latest_losses", notice)
    outcomes = run_cells(cells[:2], jobs=2, run=stub.log_a_loss)
    assert [outcome.state for outcome in outcomes] == ["finished", "finished"]
    shown = capsys.readouterr().err
    assert "0/2" in shown.split("seed-0 step 20 loss 0.500, seed-1 step 20 loss 1.500")[0]
    assert "2/2" in shown.split("\r")[-1]
    assert "loss" not in shown.split("\r")[-1]


def test_a_run_that_fails_in_any_way_stops_no_other(cells, stub):
    outcomes = run_cells(cells, jobs=2, run=stub.end_in_each_way)
    assert [outcome.experiment for outcome in outcomes] == cells
    assert [outcome.state for outcome in outcomes] == ["finished", "failed", "failed", "failed", "finished"]
    assert [outcome.sentence for outcome in outcomes] == [
        "",
        "ValueError: no luck",
        sentence_of_status(-signal.SIGKILL),
        sentence_of_status(7),
        "",
    ]
    for outcome in outcomes:
        folder = RunFolder(outcome.experiment.run.directory)
        assert folder.failure.is_file() == (outcome.state == "failed")
        if outcome.state == "failed":
            assert json.loads(folder.failure.read_text())["sentence"] == outcome.sentence
        assert f"on the screen, of {outcome.experiment.training['seed']}" in folder.log.read_text()
    assert "Traceback" in RunFolder(cells[1].run.directory).log.read_text()
    assert outcomes[4].result == stub.result(4)


def test_finished_runs_are_kept_and_failed_ones_tried_again(cells, stub):
    run_cells(cells[:3], jobs=2, run=stub.end_in_each_way)
    written = RunFolder(cells[0].run.directory).metrics.stat().st_mtime_ns
    outcomes = run_cells(cells, jobs=2, run=stub.finish)
    assert [outcome.state for outcome in outcomes] == ["kept", "finished", "finished", "finished", "finished"]
    assert RunFolder(cells[0].run.directory).metrics.stat().st_mtime_ns == written
    assert outcomes[0].result == stub.result(0)
    assert not any(RunFolder(cell.run.directory).failure.exists() for cell in cells)


def test_each_run_has_its_own_process_and_its_share_of_the_threads(cells, stub):
    before = torch.get_num_threads()
    run_cells(cells, jobs=2, run=stub.finish)
    notes = [(cell.run.directory / "process.txt").read_text().split() for cell in cells]
    assert len({process for process, _ in notes}) == len(cells)
    assert {int(threads) for _, threads in notes} == {max(1, before // 2)}
    assert torch.get_num_threads() == before


@pytest.fixture
def heeding_interrupts():
    """This process and those it starts heed SIGINT, which a background process of a shell ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_interrupts")
def test_an_interrupt_stops_the_workers_and_is_no_failure(cells, stub):
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, jobs=1, run=stub.interrupt)
    process = int((cells[0].run.directory / "process.txt").read_text())
    assert not psutil.pid_exists(process)
    assert not RunFolder(cells[0].run.directory).failure.exists()
    assert not cells[1].run.directory.exists()


def test_under_torchrun_runs_follow_each_other_in_the_process(cells, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    order = []

    def run(experiment):
        order.append(experiment.training["seed"])
        if experiment.training["seed"] == 1:
            raise ConfigurationError("Key 'x' is wrong.")
        return {"metrics": {}}

    outcomes = run_cells(cells, run=run)
    assert order == [0, 1, 2, 3, 4]
    assert [outcome.state for outcome in outcomes] == ["finished", "failed", "finished", "finished", "finished"]
    assert json.loads(RunFolder(cells[1].run.directory).failure.read_text())["sentence"] == "Key 'x' is wrong."


def test_the_check_prepares_what_differs_once_and_nothing_that_is_finished(values, monkeypatch):
    values |= {"sweep": {"adapter.rank": [1, 2], "seed": [0, 1], "learning_rate": [0.1, 0.2]}}
    cells = [read_experiment(cell) for cell in expand(values)]
    prepared = []
    monkeypatch.setattr("seq2seq.running.jobs.prepare", lambda cell, trained: prepared.append(cell.adapters[0].rank))
    check_cells(cells)
    assert prepared == [1, 2]
    monkeypatch.setattr(RunFolder, "is_finished", lambda self, cell: cell.adapters[0].rank == 1)
    check_cells(cells)
    assert prepared == [1, 2, 2]


def test_a_folder_that_holds_another_run_is_refused(cells, stub):
    run_cells(cells[:1], run=stub.finish)
    other = replace(cells[0], training={**cells[0].training, "learning_rate": 0.5})
    with pytest.raises(ConfigurationError, match=r"'learning_rate' must equal that of the run"):
        check_cells([other])


@pytest.mark.parametrize("content", ["", '{"metr', "[]", "{}"])
def test_a_result_that_cannot_be_read_is_refused_before_anything_runs(content, cells, stub):
    run_cells(cells[:1], run=stub.finish)
    RunFolder(cells[0].run.directory).metrics.write_text(content)
    with pytest.raises(ConfigurationError, match=r"metrics.json, which cannot be read .*: delete it .*, or set"):
        check_cells(cells)


def test_a_sweep_of_real_runs(config_file, tmp_path, capsys):
    """Two runs learn, one diverges; the second time only that one is tried again."""
    sweep = ["sweep.adapter.scaling=[1.0,1e18]", "optim=sgd", "max_grad_norm=0", "learning_rate=1", "max_steps=2"]
    arguments = [str(config_file), *sweep, "--jobs", "2"]
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    good, bad = (tmp_path / "outputs" / "colours" / name for name in ("scaling-1.0", "scaling-1e18"))
    assert "Runs: 1 finished, 1 failed" in shown
    assert json.loads((good / "metrics.json").read_text())["costs"]["steps_measured"] == 2
    assert '"train/loss"' in (good / "log.txt").read_text()
    sentence = json.loads((bad / "failure.json").read_text())["sentence"]
    assert sentence.startswith("A merged weight is finite")
    assert sentence in shown
    assert main(arguments) == 1
    assert "Runs: 1 kept, 1 failed" in capsys.readouterr().out
    assert main([str(good / "config.json")]) == 0, "a cell's config.json is that of a run"


@pytest.mark.slow
def test_workers_end_with_a_command_that_is_killed(config_file, tmp_path):
    """After Ctrl-C it stops them itself, see above."""
    sweep = ["sweep.seed=[0,1]", "num_train_epochs=200", "save_total_limit=1"]
    first = started(main, [str(config_file), "--jobs", "2", *sweep])
    checkpoints = [tmp_path / "outputs" / "colours" / f"seed-{seed}" / "checkpoints" for seed in (0, 1)]
    while not all(list(path.glob("checkpoint-*/trainer_state.json")) for path in checkpoints):
        assert first.is_alive(), "the command ended before it could be stopped"
        time.sleep(0.01)
    processes = psutil.Process(first.pid).children(recursive=True)
    assert len(processes) >= 3  # the server and two workers
    first.kill()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []
    assert not list((tmp_path / "outputs").rglob("failure.json"))
