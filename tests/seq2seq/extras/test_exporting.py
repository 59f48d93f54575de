"""The key do_export: what is written, loads in plain transformers and computes the same, and what is only said."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

import adapters
from seq2seq.configuration.reading import read_experiment
from seq2seq.extras import exporting
from seq2seq.running.runner import run_experiment


def test_the_folder_is_the_merged_model(values, tmp_path):
    result = run_experiment(read_experiment({**values, "do_export": True}))
    folder = tmp_path / "outputs" / "colours"
    assert result["export"]["difference"] < 1e-5
    assert not (folder / "factorized").exists()
    experiment = read_experiment(values)
    merged = adapters.merge_and_unload(adapters.load(experiment.load_model(), folder / "adapter"))
    plain = T5ForConditionalGeneration.from_pretrained(folder / "exported")
    for name, tensor in merged.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor), name
    assert "exported against trained" in (folder / "README.md").read_text()
    assert not any("cores" in name for name in load_file(folder / "exported" / "model.safetensors"))


def test_a_model_that_cannot_be_merged_for_good_keeps_its_result(values, tmp_path):
    """Training gives biases to modules without one, which a configuration cannot describe."""
    result = run_experiment(read_experiment({**values, "adapter": {"kind": "bitfit"}, "do_export": True}))
    folder = tmp_path / "outputs" / "colours"
    assert result["export"]["difference"] is None
    assert "bias" in result["export"]["reason"]
    assert json.loads((folder / "metrics.json").read_text())["metrics"] == result["metrics"]
    assert not (folder / "exported").exists()
    page = (folder / "README.md").read_text()
    assert "not exported" in page
    assert result["export"]["reason"].rstrip(".") in page


def test_a_finished_run_is_exported_without_training(values, tmp_path, monkeypatch):
    before = run_experiment(read_experiment(values))
    assert before["export"] is None
    result = run_experiment(read_experiment({**values, "do_export": True, "do_train": False}))
    assert result["metrics"] == before["metrics"]
    assert result["export"]["difference"] < 1e-5
    monkeypatch.setattr(exporting, "write_folders", lambda *_: pytest.fail("written twice"))
    run_experiment(read_experiment({**values, "do_export": True}))


def test_other_errors_are_not_hidden(values, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(exporting, "write_folders", fail)
    with pytest.raises(OSError, match="the disk is full"):
        run_experiment(read_experiment({**values, "do_export": True}))
