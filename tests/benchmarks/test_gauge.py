"""The benchmark of the gauge with few steps, against known properties of Jacobians of trains."""

import json

import pytest
import torch

from benchmarks import gauge


def test_the_jacobian_has_the_gauge_as_null_space_and_condition_one_with_a_zero_orthogonal_center():
    parameters = sum(core.numel() for core in gauge.start(0, False, "plain"))
    found = gauge.measure_conditioning(0, 3)
    assert found["start, no zero core, Glorot"]["rank"] == parameters - 2 * gauge.RANK**2
    assert found["start, zero core, orthogonal"]["condition"] == pytest.approx(1)
    assert found["start, zero core, Glorot"]["rank"] == gauge.start(0, True, "plain")[-1].numel()


def test_orthogonalising_during_training_keeps_the_matrix():
    cores, wanted = gauge.start(0, False, "plain"), gauge.target(0)
    before = gauge.loss_of(cores, wanted).item()
    gauge.orthogonalize(cores)
    assert gauge.loss_of(cores, wanted).item() == pytest.approx(before, rel=1e-10)


def test_a_diverging_fit_stops():
    assert gauge.fit(gauge.start(0, False, "plain"), gauge.target(0), torch.optim.SGD, 1e6, "plain", 50) == float("inf")


def test_everything_is_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gauge, "OPTIMIZERS", {"Adam": (torch.optim.Adam, (0.03, 1e30))})
    assert gauge.main(["--seeds", "1", "--steps", "22", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "gauge.json").read_text())
    assert len(record["fits"]) == 2 * len(gauge.GAUGES)
    for result in record["fits"].values():
        assert result["best_learning_rate"] == 0.03
        assert result["losses"][0] < 1.5
    assert "Condition number" in (tmp_path / "gauge.md").read_text()
    assert "zero core, Adam, plain" in capsys.readouterr().out
