"""Runs on tasks that are described in the configuration: alone, in a mixture, as the example does."""

import json

import pytest

from run_seq2seq import main
from seq2seq import PROJECT
from seq2seq.configuration.reading import load_experiment, read_experiment
from seq2seq.running.preparation import prepare
from seq2seq.running.runner import run_experiment
from tests.seq2seq.tasks.data_files import jsonl, write

NO_FILES = dict.fromkeys(("train_file", "validation_file", "test_file"))


@pytest.fixture
def colour(colours):
    """Which colour does the sentence name, as a class?"""
    return {
        "files": {split: str(colours / f"{split}.tsv") for split in ("train", "validation", "test")},
        "source": "colour of: {source}",
        "target": "{target}",
        "labels": ["red", "blue"],
        "metrics": ["accuracy", "f1"],
    }


@pytest.fixture
def repetition(tmp_path):
    """Free text, without a test set."""
    rows = jsonl(
        *[{"text": "the old house", "copy": "the old house"}, {"text": "a new door", "copy": "a new door"}] * 8
    )
    files = {split: str(write(tmp_path / f"{split}.jsonl", rows)) for split in ("validation", "train")}
    return {"files": files, "source": "{text}", "target": "{copy}", "metrics": ["rougeL", "exact_match"]}


def test_a_described_task_runs_alone(values, colour, tmp_path):
    values |= {**NO_FILES, "tasks": {"colour": colour}, "task_name": "colour", "metric_for_best_model": "f1"}
    result = run_experiment(read_experiment({**values, "baselines": ["majority", "bag_of_words"]}))
    assert {"accuracy", "f1", "invalid"} <= result["metrics"]["test"].keys()
    assert result["task"] == "colour"
    config = json.loads((tmp_path / "outputs" / "colours" / "config.json").read_text())
    assert config["tasks"] == {"colour": {**colour, "group": None}}
    assert read_experiment(config).to_dict() == config
    rows = [json.loads(line) for line in (tmp_path / "outputs/colours/predictions_test.jsonl").read_text().splitlines()]
    assert all(row["source"].startswith("colour of: ") and row["target"] in ("red", "blue") for row in rows)


def test_described_tasks_are_mixed_and_have_the_splits_of_all(values, colour, repetition):
    values |= NO_FILES | {"tasks": {"colour": colour, "copy": repetition}, "max_steps": 2}
    values["mixture"] = {"tasks": ["colour", "copy"], "batches": "one_task", "adapters": "per_task", "weights": "equal"}
    result = run_experiment(read_experiment(values))
    assert set(result["metrics"]) == {"validation"}
    metrics = result["metrics"]["validation"]
    assert {"colour/accuracy", "copy/rougeL", "copy/exact_match"} <= metrics.keys()
    both = metrics["colour/average_metrics"] + metrics["copy/average_metrics"]
    assert metrics["average_metrics"] == pytest.approx(both / 2)


def test_a_described_task_is_mixed_with_a_built_in_one(tmp_path):
    rows = jsonl({"text": "a good day", "number": 1}, {"text": "a bad day", "number": 2.5})
    own = {"files": {split: str(write(tmp_path / f"{split}.jsonl", rows)) for split in ("train", "validation", "test")}}
    own |= {"source": "{text}", "target": "{number}", "metrics": ["spearman"]}
    values = {
        "experiment_name": "mixed",
        "output_root": str(tmp_path / "outputs"),
        "tasks": {"own": own},
        "mixture": {"tasks": ["own", "world_sentiment"]},
        "adapter": {"kind": "bitfit"},
        "max_train_samples": 2,
        "max_validation_samples": 2,
        "max_test_samples": 2,
    }
    data = prepare(read_experiment(values), tmp_path / "nowhere").data
    assert set(data.tasks["own"].splits["train"]["target"]) == {"1", "2.5"}
    assert set(data.tasks["world_sentiment"].splits["train"]["target"]) <= {"bad", "good"}


def test_paths_are_relative_to_the_working_directory_or_the_project(values, colour, colours, tmp_path, monkeypatch):
    write(tmp_path / "here" / "train.tsv", (colours / "train.tsv").read_text())
    monkeypatch.chdir(tmp_path / "here")
    colour["files"]["train"] = "train.tsv"
    colour |= {"labels": None, "metrics": ["exact_match"]}
    values |= {**NO_FILES, "tasks": {"colour": colour}, "task_name": "colour"}
    assert len(prepare(read_experiment(values), tmp_path / "nowhere").data.tasks["colour"].splits["train"]) == 96
    sizes = ["max_train_samples=8", "max_validation_samples=8", "max_test_samples=8"]
    example = load_experiment(PROJECT / "configs" / "own_task.json", sizes)
    assert prepare(example, tmp_path / "nowhere").data.tasks["opinion"].splits["train"]["target"][0] in ("bad", "good")


def test_the_example_runs(tmp_path):
    sizes = ["max_train_samples=4", "max_validation_samples=4", "max_test_samples=4", "max_steps=1"]
    assert (
        main([str(PROJECT / "configs" / "own_task.json"), f"output_root={tmp_path}", "disable_tqdm=true", *sizes]) == 0
    )
    result = json.loads((tmp_path / "own_task" / "metrics.json").read_text())
    assert {"accuracy", "f1"} <= result["metrics"]["test"].keys()
