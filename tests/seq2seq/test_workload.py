"""A second workload, all in ``vectors``, goes through everything that a run can do: the seam does not leak."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import TrainingArguments

from adapters import ConfigurationError
from run_seq2seq import main
from seq2seq.configuration.reading import read_experiment
from seq2seq.report.__main__ import main as report
from seq2seq.report.collect import collect_runs
from seq2seq.report.methods import methods_of
from seq2seq.running.runner import run_experiment
from tests.processes import torchrun
from tests.seq2seq import vectors
from tests.seq2seq.conftest import stopping_at
from tests.seq2seq.running.test_runner import assert_same_run
from tests.seq2seq.running.test_tracking import Recorder
from tests.seq2seq.vectors import VectorConfig, VectorModel, VectorTrainer, VectorWorkload, scores


@pytest.fixture
def values(tmp_path):
    return {
        "experiment_name": "slope",
        "workload": "vectors",
        "output_root": str(tmp_path / "outputs"),
        "dim": 3,
        "adapter": {"kind": "none"},
        "baselines": ["mean", "frozen_backbone"],
        "num_train_epochs": 30,
        "per_device_train_batch_size": 16,
        "learning_rate": 0.05,
        "disable_tqdm": True,
    }


def test_a_run_finds_the_least_squares_solution(values, tmp_path):
    """The oracle is a closed form, computed from the rows that the run wrote and saw."""
    result = run_experiment(read_experiment(values))
    data = VectorWorkload(dim=3).load_data(None)
    x, y = (torch.tensor(data["train"][column][:], dtype=torch.float64) for column in ("x", "labels"))
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], dim=1), y[:, None]).solution  # (dim + 1, 1)
    test = torch.tensor(data["test"]["x"][:], dtype=torch.float64)
    best = scores((torch.cat([test, torch.ones(len(test), 1)], dim=1) @ solution).squeeze(1), data["test"]["labels"][:])
    assert result["metrics"]["test"]["mse"] == pytest.approx(best["mse"], rel=0.1)
    assert result["metrics"]["test"]["average_metrics"] > 0.9
    assert result["baselines"]["mean"]["average_metrics"] < 0.1
    assert result["baselines"]["frozen_backbone"]["average_metrics"] < 0.9
    assert result["costs"]["unit"] == "vectors"
    folder = tmp_path / "outputs" / "slope"
    records = [json.loads(line) for line in (folder / "predictions_test.jsonl").read_text().splitlines()]
    errors = [(record["prediction"] - record["target"]) ** 2 for record in records]
    assert sum(errors) / len(errors) == pytest.approx(result["metrics"]["test"]["mse"])
    page = (folder / "README.md").read_text()
    assert "| &emsp;always the mean | mse" in page
    assert "vectors per second" in page
    assert json.loads((folder / "config.json").read_text())["workload"] == "vectors"


def test_accumulation_gives_the_curve_of_one_batch(values):
    """64 rows: batches of 16, or two micro-batches of 8."""
    values |= {"num_train_epochs": 2, "logging_steps": 1, "baselines": [], "optim": "sgd", "max_grad_norm": 0}
    whole = run_experiment(read_experiment(values))
    micro = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "experiment_name": "micro"}
    accumulated = run_experiment(read_experiment({**values, **micro}))
    assert accumulated["metrics"]["test"]["mse"] == pytest.approx(whole["metrics"]["test"]["mse"], rel=1e-5)


class OtherKey(VectorTrainer):
    """Targets under a key that transformers does not count as labels."""

    def summed_loss(self, model, inputs):
        outputs = model(inputs["x"])
        return (outputs.logits - inputs["y"]).square().sum(), outputs

    def count_items(self, inputs):
        return torch.tensor(len(inputs["y"]))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_is_exact_whatever_the_targets_are_called(accumulation, tmp_path):
    """One step of SGD at rate 1 from zero: the gradient of the mean over 16 rows, in closed form."""
    x, y = torch.randn(16, 3), torch.randn(16)
    model = VectorModel(VectorConfig(dim=3))
    torch.nn.init.zeros_(model.linear.weight)
    torch.nn.init.zeros_(model.linear.bias)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=16 // accumulation,
        gradient_accumulation_steps=accumulation,
        **{"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0},
        **{"report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True},
        remove_unused_columns=False,
    )
    rows = Dataset.from_dict({"x": x.tolist(), "y": y.tolist()})
    OtherKey(model=model, args=arguments, train_dataset=rows).train()
    assert torch.allclose(model.linear.weight[0], 2 * (x.T @ y) / 16, atol=1e-5)  # (3, 16) x (16,) -> (3,)


def test_other_names_are_those_of_the_workloads_keys(values):
    with pytest.raises(ConfigurationError, match="got 'samples': write rows"):
        read_experiment({**values, "samples": 8})
    with pytest.raises(ConfigurationError, match="got 'source': "):  # which means a key of the workload text
        read_experiment({**values, "source": "{x}"})


def test_a_diverged_run_ends_with_null_metrics(values, tmp_path):
    values |= {"learning_rate": 900.0, "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0}
    values |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    result = run_experiment(read_experiment(values))
    stored = json.loads((tmp_path / "outputs" / "slope" / "metrics.json").read_text())["metrics"]["test"]
    assert stored == result["metrics"]["test"] == {"mse": None, "average_metrics": None}
    assert "| test mse | not finite |" in (tmp_path / "outputs" / "slope" / "README.md").read_text()


def test_metrics_of_numpy_are_kept(values, monkeypatch):
    evaluate = VectorWorkload.evaluate

    def in_float32(self, prepared, trainer, split):
        metrics, rows = evaluate(self, prepared, trainer, split)
        return {name: np.float32(value) for name, value in metrics.items()}, rows

    monkeypatch.setattr(VectorWorkload, "evaluate", in_float32)
    result = run_experiment(read_experiment({**values, "num_train_epochs": 1, "baselines": []}))
    assert {type(value) for value in result["metrics"]["test"].values()} == {float}


def test_rows_may_have_columns_that_the_model_does_not_take(values, monkeypatch):
    load_data = VectorWorkload.load_data

    def with_ids(self, arguments):
        return DatasetDict(
            {name: rows.add_column("id", range(len(rows))) for name, rows in load_data(self, arguments).items()}
        )

    monkeypatch.setattr(VectorWorkload, "load_data", with_ids)
    result = run_experiment(read_experiment({**values, "num_train_epochs": 1, "baselines": []}))
    assert result["merge_difference"] == 0.0


def test_models_of_two_names_are_two_methods(values, tmp_path, monkeypatch):
    for name in ("one loop", "two loops"):
        monkeypatch.setattr(VectorWorkload, "model_label", name)
        small = {**values, "experiment_name": name.replace(" ", "_"), "num_train_epochs": 1, "baselines": []}
        run_experiment(read_experiment(small))
    methods = methods_of(collect_runs(tmp_path / "outputs"))
    assert sorted(method.model for method in methods) == ["one loop", "two loops"]


def test_a_sweep_and_its_report(values, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**values, "num_train_epochs": 2, "sweep": {"dim": [2, 3], "seed": [0, 1]}}))
    assert main([str(path)]) == 0
    cells = sorted(folder.parent.name for folder in (tmp_path / "outputs").rglob("metrics.json"))
    assert cells == ["dim-2__seed-0", "dim-2__seed-1", "dim-3__seed-0", "dim-3__seed-1"]
    assert report([str(tmp_path / "outputs")]) == 0
    page = (tmp_path / "outputs" / "report" / "report.md").read_text()
    assert "4 finished" in page
    assert "regression in 3 dimensions" in page


def test_a_stopped_run_resumes_to_the_same_curve(values, tmp_path):
    values |= {"num_train_epochs": 4, "logging_steps": 1, "save_total_limit": 9, "baselines": []}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with stopping_at(6, VectorWorkload), pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    assert not (tmp_path / "outputs" / "slope" / "metrics.json").exists()
    assert main([str(path)]) == 0
    assert main([str(path), "experiment_name=whole"]) == 0
    assert_same_run(tmp_path / "outputs" / "whole", tmp_path / "outputs" / "slope")


@pytest.mark.slow
def test_two_processes_share_a_run_and_its_random_baseline(values, tmp_path):
    """The first checkpoint is the best: every process loads it from the folder that the main process wrote."""
    values |= {"num_train_epochs": 3, "learning_rate": 3.0, "optim": "sgd", "max_grad_norm": 0}
    values |= {"lr_scheduler_type": "constant", "baselines": ["random_backbone"], "use_cpu": True}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert torchrun(vectors.main, [str(tmp_path / "config.json")]) == [0, 0]
    result = json.loads((tmp_path / "outputs" / "slope" / "metrics.json").read_text())
    assert set(result["baselines"]) == {"random_backbone"}
    assert not (tmp_path / "outputs" / "slope" / "random_backbone").exists()


def test_a_run_is_tracked(values, tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("seq2seq.running.runner.make_tracker", lambda *_: recorder)
    run_experiment(read_experiment({**values, "num_train_epochs": 1, "baselines": []}))
    steps = [logged for logged in recorder.logged if isinstance(logged[0], int) and "train/loss" in logged[1]]
    assert steps
    assert any("test/mse" in logged[1] for logged in recorder.logged if isinstance(logged[1], dict))
    assert ("curve", "curve.png") in recorder.logged


def test_a_key_that_hides_a_method_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="must not hide a method; got 'evaluate' in Clumsy: rename it"):

        class Clumsy(VectorWorkload):
            evaluate: bool = True


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"task_name": "rte"}, ["'task_name' belongs to the workload 'text'", "'vectors'"]),
        ({"dmi": 3}, ["'dmi'", "did you mean 'dim'"]),
        ({"dim": 0}, ["'dim'", "at least 1", "got 0"]),
        ({"dim": "three"}, ["'dim'", "'three'", "integer"]),
        ({"workload": "vector"}, ["'workload'", "'vector'", "did you mean 'vectors'"]),
        ({"workload": 1}, ["'workload'", "got 1"]),
        ({"workload": "text", "task_name": "rte"}, ["'dim' belongs to the workload 'vectors'", "'text'"]),
        ({"generation_num_beams": 2}, ["'generation_num_beams'"]),
        ({"label_smoothing_factor": 0.1}, ["'label_smoothing_factor'", "classes"]),
        ({"metric_for_best_model": "accuracy"}, ["'metric_for_best_model'", "'accuracy'", "mse"]),
        ({"baselines": ["majority"]}, ["'baselines'", "'majority'", "mean"]),
        ({"measure_expressivity": True}, ["'measure_expressivity'", "VectorModel"]),
        ({"adapter": {"kind": "tt_lora"}}, ["adapter", "target_modules"]),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(changes, parts, values, tmp_path):
    with pytest.raises(ConfigurationError) as refusal:
        run_experiment(read_experiment({**values, **changes}))
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert not (tmp_path / "outputs").exists()
