"""The benchmark of training steps, on the small model."""

import json

import pytest
import torch

from benchmarks import training_step
from benchmarks.training_step import METHODS, main

pytest.importorskip("peft", reason="the extra 'peft' is not installed")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(name):
    options = training_step.parse(["--batch", "2", "--length", "8"])
    model = training_step.build(name, "tiny", "float32", torch.device("cpu"))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trainable]
    training_step.training_step(model, training_step.batch(model, options, torch.device("cpu")))()
    assert bool(trainable) == (name != "frozen")
    assert not trainable or any(not torch.equal(a, b) for a, b in zip(trainable, before, strict=True))


@pytest.mark.slow
def test_the_record_has_times_memory_and_evaluation(tmp_path, monkeypatch, capsys):
    """With two methods only: memory is measured in a new process for each."""
    methods = {name: METHODS[name] for name in ("frozen", "tt_lora cheapest, rank 4")}
    monkeypatch.setattr(training_step, "METHODS", methods)
    assert main(["--quick", "--batch", "2", "--length", "8", "--rounds", "1", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "training_step.json").read_text())
    assert record["methods"].keys() == methods.keys()
    for name, row in record["methods"].items():
        assert row["seconds"][0] > 0
        assert row["peak_mib"] >= 0
        assert (row["trainable"] == 0) == (name == "frozen")
    assert {"merged / dense", "unmerged / dense", "merge ms", "unmerge ms"} == record["evaluation"].keys()
    assert "tt_lora cheapest, rank 4" in (tmp_path / "training_step.md").read_text()
    assert "Written" in capsys.readouterr().out
