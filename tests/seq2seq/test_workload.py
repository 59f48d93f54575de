"""A second workload, all in ``vectors``, goes through everything that a run can do: the seam does not leak."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from adapters import ConfigurationError
from run_seq2seq import main
from seq2seq import PROJECT
from seq2seq.configuration.reading import read_experiment
from seq2seq.report.__main__ import main as report
from seq2seq.running.runner import run_experiment
from tests.seq2seq.running.test_runner import assert_same_run
from tests.seq2seq.running.test_tracking import Recorder
from tests.seq2seq.vectors import VectorWorkload, scores


@pytest.fixture
def values(tmp_path):
    return {
        "experiment_name": "slope",
        "workload": "vectors",
        "output_root": str(tmp_path / "outputs"),
        "dim": 3,
        "adapter": {"kind": "none"},
        "baselines": ["mean", "frozen_backbone"],
        "num_train_epochs": 30,
        "per_device_train_batch_size": 16,
        "learning_rate": 0.05,
        "disable_tqdm": True,
    }


def test_a_run_finds_the_least_squares_solution(values, tmp_path):
    """The oracle is a closed form, computed from the rows that the run wrote and saw."""
    result = run_experiment(read_experiment(values))
    data = VectorWorkload(dim=3).load_data(None)
    x, y = (torch.tensor(data["train"][column][:], dtype=torch.float64) for column in ("x", "labels"))
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], dim=1), y[:, None]).solution  # (dim + 1, 1)
    test = torch.tensor(data["test"]["x"][:], dtype=torch.float64)
    best = scores((torch.cat([test, torch.ones(len(test), 1)], dim=1) @ solution).squeeze(1), data["test"]["labels"][:])
    assert result["metrics"]["test"]["mse"] == pytest.approx(best["mse"], rel=0.1)
    assert result["metrics"]["test"]["average_metrics"] > 0.9
    assert result["baselines"]["mean"]["average_metrics"] < 0.1
    assert result["baselines"]["frozen_backbone"]["average_metrics"] < 0.9
    assert result["costs"]["counted"] == "vectors"
    folder = tmp_path / "outputs" / "slope"
    records = [json.loads(line) for line in (folder / "predictions_test.jsonl").read_text().splitlines()]
    errors = [(record["prediction"] - record["target"]) ** 2 for record in records]
    assert sum(errors) / len(errors) == pytest.approx(result["metrics"]["test"]["mse"])
    page = (folder / "README.md").read_text()
    assert "| always the mean | mse" in page
    assert "vectors per second" in page
    assert json.loads((folder / "config.json").read_text())["workload"] == "vectors"


def test_accumulation_gives_the_curve_of_one_batch(values):
    """64 rows: batches of 16, or two micro-batches of 8."""
    values |= {"num_train_epochs": 2, "logging_steps": 1, "baselines": [], "optim": "sgd", "max_grad_norm": 0}
    whole = run_experiment(read_experiment(values))
    micro = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "experiment_name": "micro"}
    accumulated = run_experiment(read_experiment({**values, **micro}))
    assert accumulated["metrics"]["test"]["mse"] == pytest.approx(whole["metrics"]["test"]["mse"], rel=1e-5)


def test_a_sweep_and_its_report(values, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**values, "num_train_epochs": 2, "sweep": {"dim": [2, 3], "seed": [0, 1]}}))
    assert main([str(path)]) == 0
    cells = sorted(folder.parent.name for folder in (tmp_path / "outputs").rglob("metrics.json"))
    assert cells == ["dim-2__seed-0", "dim-2__seed-1", "dim-3__seed-0", "dim-3__seed-1"]
    assert report([str(tmp_path / "outputs")]) == 0
    page = (tmp_path / "outputs" / "report" / "report.md").read_text()
    assert "4 finished" in page
    assert "regression in 3 dimensions" in page


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_curve(values, tmp_path):
    values |= {"num_train_epochs": 200, "logging_steps": 1, "save_total_limit": 200, "baselines": []}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    command = [sys.executable, "-c", "from tests.seq2seq.vectors import main; main()", str(path)]
    killed = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "outputs").glob("slope/checkpoints/checkpoint-*/trainer_state.json")):
        assert killed.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "outputs" / "slope" / "metrics.json").exists()
    assert main([str(path)]) == 0
    assert main([str(path), "experiment_name=whole"]) == 0
    assert_same_run(tmp_path / "outputs" / "whole", tmp_path / "outputs" / "slope")


def test_a_run_is_tracked(values, tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("seq2seq.running.runner.make_tracker", lambda *_: recorder)
    run_experiment(read_experiment({**values, "num_train_epochs": 1, "baselines": []}))
    steps = [logged for logged in recorder.logged if isinstance(logged[0], int) and "train/loss" in logged[1]]
    assert steps
    assert any("test/mse" in logged[1] for logged in recorder.logged if isinstance(logged[1], dict))
    assert ("curve", "curve.png") in recorder.logged


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"task_name": "rte"}, ["'task_name' belongs to the workload 'text'", "'vectors'"]),
        ({"dmi": 3}, ["'dmi'", "did you mean 'dim'"]),
        ({"dim": 0}, ["'dim'", "at least 1", "got 0"]),
        ({"dim": "three"}, ["'dim'", "'three'", "integer"]),
        ({"workload": "vector"}, ["'workload'", "'vector'", "did you mean 'vectors'"]),
        ({"workload": 1}, ["'workload'", "got 1"]),
        ({"workload": "text", "task_name": "rte"}, ["'dim' belongs to the workload 'vectors'", "'text'"]),
        ({"generation_num_beams": 2}, ["'generation_num_beams'"]),
        ({"baselines": ["majority"]}, ["'baselines'", "'majority'", "mean"]),
        ({"measure_expressivity": True}, ["'measure_expressivity'", "VectorModel"]),
        ({"adapter": {"kind": "tt_lora"}}, ["adapter", "VectorModel"]),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(changes, parts, values, tmp_path):
    with pytest.raises(ConfigurationError) as refusal:
        run_experiment(read_experiment({**values, **changes}))
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert not (tmp_path / "outputs").exists()
