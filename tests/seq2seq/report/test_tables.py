"""The values of the tables against independent computations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of
from seq2seq.report.pareto_front import pareto_front
from seq2seq.report.tables import DASH, difference_table, method_table, results_frame, runs_frame

POINTS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=12)


@given(POINTS)
def test_the_pareto_front_is_the_set_of_non_dominated_points(points):
    def dominates(first, second):
        return first[0] <= second[0] and first[1] >= second[1] and first != second

    front = pareto_front(points)
    non_dominated = {point for point in points if not any(dominates(other, point) for other in points)}
    assert {points[index] for index in front} == non_dominated
    assert len(front) == len(non_dominated)
    assert [points[index][0] for index in front] == sorted(points[index][0] for index in front)


@pytest.fixture
def table(write_run, tmp_path):
    """Full fine-tuning and an adapter on rte with two seeds, the adapter alone on cola."""
    for seed in (0, 1):
        write_run(f"full-{seed}", 0.8 + seed / 10, 10**6, 2.0, adapter=[{"kind": "none"}], seed=seed)
        write_run(f"small-{seed}", 0.6 + seed / 10, 1000, 1.5, seed=seed)
    write_run("small-cola", 0.4, 1000, task_name="cola")
    write_run("dead", failure="It was too large.", seed=7)
    runs = collect_runs(tmp_path / "outputs")
    return runs, methods_of(runs)


def test_results_have_a_row_per_method_and_task(table):
    frame = results_frame(table[1]).set_index(["method", "task"])
    assert set(frame.index) == {("full fine-tuning", "rte"), ("tt_lora r4", "rte"), ("tt_lora r4", "cola")}
    row = frame.loc[("tt_lora r4", "rte")]
    np.testing.assert_allclose([row["mean"], row["std"]], [np.mean([0.6, 0.7]), np.std([0.6, 0.7], ddof=1)])
    assert (row["seeds"], row["split"], row["metric_accuracy"]) == (2, "test", pytest.approx(0.65))
    ratios = [
        row[f"{name}_to_full"] for name in ("trainable_parameters", "adapter_bytes", "step_ms", "peak_memory_mib")
    ]
    np.testing.assert_allclose(ratios, [1e-3, 1e-3, 0.75, 0.75])
    assert frame.loc[("tt_lora r4", "cola")].isna()["step_ms_to_full"]


def test_runs_have_a_row_each(table):
    frame = runs_frame(*table).set_index("run")
    assert len(frame) == 6
    assert frame.loc["dead", "state"] == "failed"
    assert frame.loc["dead", "why"] == "It was too large."
    assert frame.loc["small-1", "test_accuracy"] == pytest.approx(0.7)
    assert frame.loc["small-1", "step_ms"] == pytest.approx(150)
    assert frame.loc["small-1", "peak_memory_mib"] == pytest.approx(384)


def test_method_cells(table):
    made = method_table("All", table[1], table[1])
    rows = made.rows
    cells = {row[1]: dict(zip(made.header, row, strict=True)) for row in rows}
    small, full = cells["tt_lora r4"], cells["full fine-tuning"]
    assert (small["rte (accuracy)"], small["cola (accuracy)"]) == ("0.6500 ± 0.0707", "0.4000")
    assert small["average"] == "0.5250"  # seed 1 has no cola, so there is no spread of the average
    assert (full["cola (accuracy)"], full["average"]) == (DASH, "0.8500 ± 0.0707 (1 of 2)")
    assert (small["trainable parameters"], small["share"], small["adapter bytes"]) == ("1,000", "0.100%", "4,000")
    assert (full["parameters ×"], full["time ×"]) == ("1", "1")
    assert small["bytes ×"] == "0.001"
    assert [row[0] for row in rows] == ["1", "2"]


def test_without_full_fine_tuning_there_are_no_ratios(write_run, tmp_path):
    write_run("small", 0.5)
    methods = methods_of(collect_runs(tmp_path / "outputs"))
    made = method_table("All", methods, methods)
    assert not any("×" in name for name in made.header)
    assert "average" not in made.header
    assert len(made.rows[0]) == len(made.header)
    assert difference_table(methods) is None


def test_full_fine_tuning_of_another_backbone_is_not_the_reference(write_run, tmp_path):
    write_run("small", 0.5)
    write_run("full", 0.5, adapter=[{"kind": "none"}], model_name_or_path="other")
    frame = results_frame(methods_of(collect_runs(tmp_path / "outputs"))).set_index("method")
    assert frame.isna().loc["tt_lora r4", "step_ms_to_full"]


def test_the_reference_has_equally_many_rows_or_else_the_most(write_run, tmp_path):
    for rows, scale in ((None, 4.0), (100, 2.0)):
        write_run(f"full-{rows}", 0.5, scale=scale, adapter=[{"kind": "none"}], max_train_samples=rows)
    write_run("small-100", 0.5, scale=1.0, max_train_samples=100)
    write_run("small-500", 0.5, scale=1.0, max_train_samples=500)
    frame = results_frame(methods_of(collect_runs(tmp_path / "outputs"))).set_index(["method", "train_rows"])
    assert frame.loc[("tt_lora r4", 100), "step_ms_to_full"] == pytest.approx(0.5)
    assert frame.loc[("tt_lora r4", 500), "step_ms_to_full"] == pytest.approx(0.25)
