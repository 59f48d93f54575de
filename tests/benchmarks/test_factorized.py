"""The benchmark of factorized linears on small ones: contenders compute one product, and the tables are complete."""

import json

import pytest
import torch

from benchmarks import factorized, factorized_peers, factorized_tables
from t3nsor.contraction.chains import Sizes
from t3nsor.contraction.planner import Problem

NETWORKS = {
    "1 product": {"format": "kronecker", "first_shape": [8, 8], "factors": 1},
    "4 products": {"format": "kronecker", "first_shape": [12, 4], "factors": 4},
    **factorized.OTHERS,
}
STEPS = (("forward", 1), ("forward", 128), ("training", 128))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(factorized, "MODELS", {"small": ((16, 24), NETWORKS)})
    monkeypatch.setattr(factorized, "STEPS", STEPS)


def test_all_contenders_compute_the_same_product():
    for _, name, network in factorized.cases(torch.float64):
        x = torch.randn(128, network.in_features, dtype=torch.float64)
        expected = x @ network.full().T
        found = factorized_peers.contenders(name, network)
        assert ("products" in found) == ("product" in name)
        if name != "low rank":
            limit = sum(p.numel() for p in network.parameters())
            assert sum(p.numel() for p in found.pop("low rank").parameters()) <= limit
        problem = Problem.make(128, Sizes.of(network.live_cores()), torch.float64, "cpu", None)
        for training in (False, True):
            plans = factorized_peers.fixed_plans(problem, training)
            assert "materialised" in plans
            found |= {plan: factorized_peers.with_plan(network, plan) for plan in plans}
        for module in found.values():
            torch.testing.assert_close(module(x), expected)


def test_a_record_has_a_row_for_each_step_and_the_tables_a_line_for_each_comparison(tmp_path, capsys):
    results = tmp_path / "kronecker" / "speed.json"
    command = ["--rounds", "1", "--threads", "1", "--results", str(results)]
    assert factorized.main(command) == 0
    assert not results.exists()
    assert factorized.main([*command, "--write"]) == 0
    rows = json.loads(results.read_text())["threads 1"]["rows"]
    layers = ("16 -> 24", "24 -> 16")
    assert [(row["layer"], row["network"], row["step"], row["tokens"]) for row in rows] == [
        (layer, network, *step) for layer in layers for network in NETWORKS for step in STEPS
    ]
    for row in rows:
        assert row["ratios"]["network"] == [1, 1, 1]
        assert row["weights"]["dense"] == 4 * 16 * 24
        if row["step"] == "training":  # at least the gradients of the weight and of x
            assert row["peak"]["dense"] >= 4 * (16 * 24 + row["tokens"] * min(16, 24))
        dense = 2 * row["tokens"] * 16 * 24
        assert row["flops"]["dense"] == (3 * dense if row["step"] == "training" else dense)
    shown = capsys.readouterr().out
    assert all(bar.text[:16] in shown for bar in factorized_tables.BARS)  # the rest may be on another line
    assert all(f"{row['ratios']['dense'][0]:.2f}" in shown for row in rows)


@pytest.mark.parametrize(
    ("ratios", "state"), [([0.9, 0.8, 1.1], "held"), ([1.1, 0.9, 1.2], "within noise"), ([1.2, 1.1, 1.3], "missed")]
)
def test_a_missed_bar_is_listed_with_its_counts(ratios, state):
    row = {
        "layer": "16 -> 24",
        "network": "low rank",
        "step": "forward",
        "tokens": 1,
        "plan": "halves@1",
        "milliseconds": {"network": 1.0, "dense": 1.0},
        "ratios": {"network": [1, 1, 1], "dense": ratios},
        "weights": {"network": 4, "dense": 8},
        "flops": {"network": 2_000_000, "dense": 3_000_000},
        "moved": {"network": 5_000_000, "dense": 6_000_000},
    }
    summary, *details = factorized_tables.bar_tables([row])
    line = next(line for line in summary.splitlines() if "decoding" in line)
    assert [int(cell) for cell in line.split()[-3:]] == [int(state == s) for s in ("held", "within noise", "missed")]
    assert len(details) == (state == "missed")
    assert all("2.0 / 3.0" in table and "5.0 / 6.0" in table for table in details)
