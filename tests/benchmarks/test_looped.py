"""The benchmark of looped models: what its steps compute, and its record."""

import json

import pytest
import torch

from benchmarks import looped
from benchmarks.looped import MODELS, SEEDS, build, main, prompts, stacked_step

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(looped, "BATCH", 2)
    monkeypatch.setattr(looped, "SIZES", {**looped.SIZES, "hidden_size": 8, "num_heads": 2})


@pytest.mark.parametrize("name", ["L = 1, b = 8, T = 4", "L = 8"])
def test_stacked_seeds_have_the_losses_of_models_by_themselves(name):
    """Before and after a step, which their gradients determine."""
    x, y = prompts(SEEDS, CPU)
    models = build(name, SEEDS, CPU)
    step = stacked_step(build(name, SEEDS, CPU), CPU)
    for _ in range(2):
        losses = []
        for model, inputs, targets in zip(models, x, y, strict=True):
            losses.append((model(inputs).by_loop - targets).square().mean())
        torch.testing.assert_close(step(), sum(losses).detach(), rtol=1e-5, atol=0)
        sum(losses).backward()
        for model in models:
            torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4).step()
            model.zero_grad()
        assert len({round(loss.item(), 6) for loss in losses}) == SEEDS


def test_the_record_has_every_model_and_way(tmp_path, capsys):
    assert main(["--rounds", "1", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "looped.json").read_text())
    assert record["seconds"].keys() == MODELS.keys()
    assert all(row.keys() == {"float32", "bfloat16", "stacked"} for row in record["seconds"].values())
    assert "bfloat16 / float32" in (tmp_path / "looped.md").read_text()
    assert "seeds against" in capsys.readouterr().out
