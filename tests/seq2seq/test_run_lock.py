"""One process owns a run folder: the second is refused, and the system frees it whatever ends the first."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from filelock import UnixFileLock

from run_seq2seq import main
from seq2seq.configuration.reading import read_experiment
from seq2seq.run_lock import FolderInUseError, lock_path, owned
from seq2seq.running.jobs import run_cells
from seq2seq.running.runner import run_experiment
from tests.processes import started

HOLD = """
import json, os, sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    with open(sys.argv[1], "w") as file:
        json.dump({"process": os.getpid(), "host": "elsewhere", "since": "2026-01-02T03:04:05+00:00"}, file)
    print("owned", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_process(tmp_path):
    """Another process that owns outputs/colours."""
    path = lock_path(tmp_path / "outputs" / "colours")
    path.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "owned\n"
        yield process
        process.kill()


def test_a_folder_that_another_process_uses_is_refused_by_its_name(values, other_process, tmp_path):
    with pytest.raises(
        FolderInUseError,
        match=rf"outputs/colours, which is used by process {other_process.pid} on elsewhere, since 2026-",
    ):
        run_experiment(read_experiment(values))
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [".colours.lock"]


@pytest.mark.parametrize("different", [{}, {"learning_rate": 0.5}, {"overwrite": True}, {"do_train": False}])
def test_whatever_the_second_process_is_told(different, values, other_process, tmp_path):
    with pytest.raises(FolderInUseError):
        run_experiment(read_experiment({**values, **different}))


def test_a_killed_process_leaves_the_folder_free(values, other_process, tmp_path):
    other_process.kill()
    other_process.wait()
    with owned(tmp_path / "outputs" / "colours"):
        owner = json.loads(lock_path(tmp_path / "outputs" / "colours").read_text())
    assert owner["process"] == os.getpid()
    assert list((tmp_path / "outputs").iterdir()) == []


def test_a_refused_run_leaves_nothing(values, tmp_path):
    with pytest.raises(ValueError, match="raw_shape"):
        run_experiment(read_experiment({**values, "adapter": {"kind": "tt_lora", "rank": 4, "raw_shape": [[5], [5]]}}))
    assert not (tmp_path / "outputs").exists()


def test_a_process_may_own_a_folder_twice(tmp_path):
    with owned(tmp_path / "run"):
        with owned(tmp_path / "run"):
            pass
        assert lock_path(tmp_path / "run").is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_without_an_owner_is_no_obstacle_and_one_that_cannot_be_read_is_named(tmp_path, other_process):
    lock_path(tmp_path / "run").write_text("left over")
    with owned(tmp_path / "run"):
        pass
    lock_path(tmp_path / "outputs" / "colours").write_text("{")
    with pytest.raises(FolderInUseError, match="is used by another process: wait"), owned(tmp_path / "outputs/colours"):
        pass


def test_a_disk_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def refuse(lock):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(UnixFileLock, "_acquire", refuse)
    with owned(tmp_path / "run"):
        pass
    assert "No file locks on this disk" in caplog.text


def test_a_cell_that_another_process_runs_fails_alone_and_its_folder_stays_as_it_is(values, other_process, tmp_path):
    values = {**values, "num_train_epochs": 1, "max_train_samples": 16}
    cells = [read_experiment({**values, "experiment_name": name}) for name in ("colours", "other")]
    first, second = run_cells(cells)
    assert (first.state, second.state) == ("failed", "finished")
    assert f"process {other_process.pid}" in first.sentence
    assert not (tmp_path / "outputs" / "colours").exists()


def test_a_sweep_of_which_a_cell_runs_elsewhere_is_refused(values, other_process, tmp_path, capsys):
    paths = []
    for name in ("other", "colours"):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({**values, "experiment_name": name}))
    assert main([str(path) for path in paths]) == 2
    assert f"process {other_process.pid}" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [".colours.lock"]


def test_a_cell_whose_folder_another_run_has_filled_meanwhile_is_refused_and_left_alone(values, tmp_path):
    values = {**values, "num_train_epochs": 1, "max_train_samples": 16}
    run_experiment(read_experiment({**values, "learning_rate": 0.02}))
    before = {path: path.read_bytes() for path in (tmp_path / "outputs" / "colours").glob("*.json")}
    outcome, _ = run_cells([read_experiment(values), read_experiment({**values, "experiment_name": "other"})])
    assert outcome.state == "failed"
    assert "'learning_rate' must equal that of the run" in outcome.sentence
    assert {path: path.read_bytes() for path in (tmp_path / "outputs" / "colours").glob("*.json")} == before


@pytest.mark.slow
def test_the_same_command_twice_leaves_the_first_run_alone(values, tmp_path, capsys):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**values, "num_train_epochs": 40}))
    first = started(main, [str(path)])
    while not (tmp_path / "outputs" / "colours" / "config.json").exists():
        assert first.is_alive()
        time.sleep(0.05)
    assert main([str(path), "learning_rate=0.5"]) == 2
    assert f"is used by process {first.pid} on" in capsys.readouterr().err
    written = json.loads((tmp_path / "outputs/colours/config.json").read_text())
    assert written["learning_rate"] == values["learning_rate"]
    first.terminate()
    first.join()
    assert first.exitcode == -signal.SIGTERM
    assert main([str(path), "max_steps=4", "overwrite=true"]) == 0
