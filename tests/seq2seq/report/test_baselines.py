"""The table of baselines: one row where all methods agree, one for each method where it depends on it."""

import json

import pytest

from seq2seq.report.baselines import baseline_table
from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of
from seq2seq.report.names import short_label


def with_baselines(folder, **values):
    path = folder / "metrics.json"
    result = json.loads(path.read_text())
    result["baselines"] = {name: {"average_metrics": value, "accuracy": value} for name, value in values.items()}
    path.write_text(json.dumps(result))


def test_rows_and_means(write_run, tmp_path):
    for seed, random in ((0, 0.5), (1, 0.6)):
        full = write_run(f"full-{seed}", 0.8, adapter=[{"kind": "none"}], seed=seed)
        with_baselines(full, majority=0.55, random_backbone=random)
    with_baselines(write_run("small-0", 0.7), majority=0.55, random_backbone=0.4)
    write_run("small-1", 0.7, seed=1)
    with_baselines(write_run("small-cola", 0.4, task_name="cola"), majority=0.0)
    table = baseline_table(methods_of(collect_runs(tmp_path / "outputs")))
    assert table.header == ["baseline", "cola (accuracy)", "rte (accuracy)"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["random backbone (full fine-tuning)"] == ["–", "0.5500 ± 0.0707"]
    assert rows["random backbone (tt_lora r4)"] == ["–", "0.4000"]
    assert rows["majority"] == ["0.0000", "0.5500"]
    assert len(rows) == 3


def test_one_row_if_all_methods_agree(write_run, tmp_path):
    with_baselines(write_run("full", 0.8, adapter=[{"kind": "none"}]), majority=0.55)
    with_baselines(write_run("small", 0.7), majority=0.55)
    table = baseline_table(methods_of(collect_runs(tmp_path / "outputs")))
    assert table.rows == [["majority", "0.5500"]]


def test_no_table_without_baselines(write_run, tmp_path):
    write_run("full", 0.8)
    assert baseline_table(methods_of(collect_runs(tmp_path / "outputs"))) is None


def test_a_factorized_model_is_not_full_fine_tuning(write_run, tmp_path):
    everything = [{"kind": "none"}]
    write_run("full", 0.8, adapter=everything)
    write_run("half", 0.7, adapter=everything, factorize=[{"format": "low_rank", "rank": 4}])
    methods = {method.label: method.is_full for method in methods_of(collect_runs(tmp_path / "outputs"))}
    assert methods == {"full fine-tuning": True, "low rank, everything trains": False}


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"factorize.format": "low_rank", "adapter.kind": "none"}, "low rank, everything trains"),
        ({"factorize.format": "kronecker", "adapter.kind": "factors"}, "kronecker, factors"),
        (
            {"factorize[0].format": "low_rank", "factorize[1].format": "low_rank", "adapter.kind": "factors"},
            "low rank, factors",
        ),
        ({"adapter.kind": "none"}, "full fine-tuning"),
    ],
)
def test_methods_with_factorized_weights_are_named_by_their_networks(settings, label):
    assert short_label(settings) == label
