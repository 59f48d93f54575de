"""The bar of long work: shown by the main process alone, and only where the work takes long."""

import pytest
from torch import nn

import adapters
from adapters import progress

LINEARS = {"a": (6, 4), "b": (4, 6)}


@pytest.mark.parametrize(("delay", "rank", "shown"), [(0, "0", True), (0, "1", False), (60, "0", False)])
def test_a_bar_counts_the_weights_that_are_factorized(delay, rank, shown, monkeypatch, capsys):
    monkeypatch.setattr(progress, "DELAY", delay)
    monkeypatch.setenv("RANK", rank)
    model = nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in LINEARS.items()})
    adapters.factorize(model, {"target_modules": [*LINEARS], "format": "low_rank", "rank": 2})
    assert ("factorize: " in capsys.readouterr().err) == shown
    assert all(isinstance(linear, adapters.factorized.layers.FactorizedLinear) for linear in model.values())
