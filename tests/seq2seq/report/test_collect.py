"""Finding and reading run folders, whatever the state of their files."""

import json

import pytest

from adapters import ConfigurationError
from seq2seq.report.collect import collect_runs


def test_runs_are_found_at_any_depth_with_their_state(write_run, tmp_path):
    write_run("single", 0.5, seed=3)
    write_run("sweep/rank-2__seed-0", 0.6)
    write_run("sweep/rank-2__seed-1", failure="It was too large.")
    write_run("sweep/rank-2__seed-2")
    runs = {run.name: run for run in collect_runs(tmp_path / "outputs")}
    assert {name: run.state for name, run in runs.items()} == {
        "single": "finished",
        "sweep/rank-2__seed-0": "finished",
        "sweep/rank-2__seed-1": "failed",
        "sweep/rank-2__seed-2": "running",
    }
    assert runs["single"].seed == 3
    assert runs["single"].result.metrics["test"]["average_metrics"] == 0.5
    assert runs["sweep/rank-2__seed-1"].sentence == "It was too large."
    assert [entry["step"] for entry in runs["single"].history] == [1, 10, 20]


def test_models_and_replaced_runs_are_not_runs(write_run, tmp_path):
    folder = write_run("good", 0.5)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "config.json").write_text('{"model_type": "t5"}')
    write_run("old", 0.1).rename(tmp_path / "outputs" / "old.replaced")
    (tmp_path / "outputs" / "list").mkdir()
    (tmp_path / "outputs" / "list" / "config.json").write_text("[]")
    assert [run.name for run in collect_runs(tmp_path / "outputs")] == ["good"]


BROKEN = {
    "not JSON": ("metrics.json", '{"task": ', "metrics.json"),
    "a list": ("metrics.json", "[]", "metrics.json"),
    "no parameters": ("metrics.json", '{"task": "rte", "model": "m", "metrics": {}}', "parameters"),
    "a metric that is not a number": (
        "metrics.json",
        json.dumps(
            {
                "task": "rte",
                "model": "m",
                "metrics": {"test": {"accuracy": "high"}},
                "parameters": {"trainable_parameters": 1, "base_parameters": 2, "share": 0.5},
            }
        ),
        "metrics.test.accuracy",
    ),
    "a metric that is not finite": (
        "metrics.json",
        json.dumps(
            {
                "task": "rte",
                "model": "m",
                "metrics": {"test": {"average_metrics": float("nan")}},
                "parameters": {"trainable_parameters": 1, "base_parameters": 2, "share": 0.5},
            }
        ),
        "metrics.test.average_metrics",
    ),
    "bytes that are not text": ("metrics.json", b"\xff\xfe\x00", "metrics.json"),
    "a broken configuration": ("config.json", "{", "config.json"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_run_with_an_unreadable_file_is_reported_as_broken(case, write_run, tmp_path):
    name, content, word = BROKEN[case]
    folder = write_run("bad", 0.5)
    write_run("good", 0.5)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    bad, good = collect_runs(tmp_path / "outputs")
    assert (bad.name, bad.state, good.state) == ("bad", "broken", "finished")
    assert word in bad.sentence
    assert "\n" not in bad.sentence


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"loss": 1}]', '[{"step": null}, {"step": "1", "loss": 2}]'])
def test_a_broken_history_is_empty(content, write_run, tmp_path):
    (write_run("run", 0.5) / "history.json").write_text(content)
    assert collect_runs(tmp_path / "outputs")[0].history == []


def test_a_run_with_a_broken_failure_file_is_still_failed(write_run, tmp_path):
    (write_run("run") / "failure.json").write_text("[]")
    (run,) = collect_runs(tmp_path / "outputs")
    assert (run.state, run.sentence) == ("failed", "failure.json cannot be read.")


def test_a_root_without_runs_raises_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="got none below"):
        collect_runs(tmp_path)
    with pytest.raises(ConfigurationError, match="is not a directory: check the path"):
        collect_runs(tmp_path / "nowhere")
