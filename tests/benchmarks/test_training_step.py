"""The benchmark of whole steps, on the small model."""

import json

import pytest

from benchmarks.training_step import METHODS, main

pytest.importorskip("peft", reason="the extra 'peft' is not installed")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_every_method_is_measured(tmp_path, capsys):
    assert main(["--quick", "--batch", "2", "--length", "8", "--rounds", "1", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "training_step.json").read_text())
    assert record["methods"].keys() == METHODS.keys()
    for name, row in record["methods"].items():
        assert row["seconds"][0] > 0
        assert row["peak_mib"] >= 0
        assert (row["trainable"] == 0) == (name == "frozen")
    assert {"merged / dense", "unmerged / dense", "merge ms", "unmerge ms"} == record["evaluation"].keys()
    assert "tt_lora cheapest, rank 4" in (tmp_path / "training_step.md").read_text()
    assert "Written" in capsys.readouterr().out
