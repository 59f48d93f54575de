"""Prompts against their definitions, the metric against closed forms, and a run from JSON to its page."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeRegressor

from adapters import ConfigurationError, load
from seq2seq.configuration.reading import read_experiment
from seq2seq.in_context.data import draw, load_prompts
from seq2seq.in_context.function_classes import FUNCTION_CLASSES, sample
from seq2seq.in_context.rows import ROWS, read_rows
from seq2seq.in_context.workload import InContextWorkload
from seq2seq.running.runner import run_experiment
from tests.seq2seq.conftest import stopping_at
from tests.seq2seq.running.test_runner import assert_same_run


def prompts_of(name, batch=2000, points=9, dims=4, seed=0, **options):
    return sample(name, batch, points, dims, torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("name", FUNCTION_CLASSES)
def test_a_seed_gives_the_same_prompts(name):
    one, other, third = prompts_of(name), prompts_of(name), prompts_of(name, seed=1)
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y, other.y)
    assert not torch.equal(one.y, third.y)


def test_noise_is_the_error_of_the_noiseless_function():
    noisy, exact = prompts_of("noisy", noise=0.5), prompts_of("linear")
    assert (noisy.y - exact.y).std().item() == pytest.approx(0.5, rel=0.02)


def test_sparse_functions_read_so_many_dims():
    prompts = prompts_of("sparse", points=40, nonzero=2)
    w = torch.linalg.pinv(prompts.x.double()) @ prompts.y.double()[..., None]
    assert ((w.abs() > 1e-4).sum(1) == 2).all()


def test_a_network_of_two_layers_has_the_variance_of_a_linear_function():
    assert prompts_of("relu", batch=20000).y.square().mean().item() == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("lineal", {}, ("'name'", "'linear'")),
        ("linear", {"active": 5}, ("'active'", "at most dims, 4", "got 5")),
        ("linear", {"active": 0}, ("'active'", "at least 1")),
        ("linear", {"points": 0}, ("'points'", "at least 1")),
        ("linear", {"noise": 0.5}, ("'noise'", "noisy")),
        ("noisy", {"noise": -1.0}, ("'noise'", "negative")),
        ("sparse", {"nonzero": 0}, ("'nonzero'", "at least 1")),
    ],
)
def test_a_sample_of_impossible_sizes_is_refused(name, options, parts):
    with pytest.raises(ConfigurationError) as caught:
        prompts_of(name, batch=2, **options)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_inactive_dims_are_zero():
    prompts = prompts_of("linear", active=3)
    assert (prompts.x[..., 3] == 0).all()
    assert prompts.y.square().mean().item() == pytest.approx(3, rel=0.1)


def test_sparse_functions_read_active_dims():
    prompts = prompts_of("sparse", nonzero=3, active=3)
    assert prompts.y.square().mean().item() == pytest.approx(3, rel=0.1)


def test_a_point_of_a_decision_tree_falls_to_a_leaf_by_four_signs():
    """With many dims every node reads another one, so two points share a leaf with probability 1 / 16."""
    prompts = prompts_of("decision_tree", batch=4000, dims=1000, points=8)
    assert prompts.y.square().mean().item() == pytest.approx(1, rel=0.05)
    same = prompts.y[:, :1] == prompts.y[:, 1:]
    assert same.float().mean().item() == pytest.approx(1 / 16, rel=0.1)
    assert (same * prompts.y[:, :1] * prompts.y[:, 1:]).mean().item() == pytest.approx(1 / 16, rel=0.15)


def test_a_decision_tree_of_one_dim_has_a_leaf_for_each_sign():
    prompts = prompts_of("decision_tree", batch=200, dims=1, points=40)
    for x, y in zip(prompts.x[..., 0], prompts.y, strict=True):
        assert len({value.item() for value in y[x > 0]}) == len({value.item() for value in y[x <= 0]}) == 1
        assert y.unique().numel() == 2


def test_scikit_learn_finds_the_tree_in_all_of_its_signs():
    prompts = prompts_of("decision_tree", batch=30, dims=3, points=400)
    for x, y in zip(prompts.x.sign(), prompts.y, strict=True):
        fitted = DecisionTreeRegressor().fit(x, y)
        np.testing.assert_allclose(fitted.predict(x), y, rtol=1e-6)  # y is a function of the signs
        assert fitted.get_n_leaves() <= 2**3


def test_prompts_interleave_x_and_y():
    prompts = prompts_of("linear", batch=2)
    vectors = prompts.interleaved()
    assert vectors.shape == (2, 18, 4)
    assert torch.equal(vectors[:, ::2], prompts.x)
    assert torch.equal(vectors[:, 1::2, 0], prompts.y)
    assert (vectors[:, 1::2, 1:] == 0).all()


def test_a_run_measures_its_last_loop(values, tmp_path):
    values |= {"probe": True, "evaluation_prompts": 64, "baselines": ["least_squares", "lasso"]}
    result = run_experiment(read_experiment(values))
    experiment = read_experiment(values)
    model = experiment.attach(experiment.load_model())
    load(model, tmp_path / "run" / "adapter")
    prompts = load_prompts(experiment.workload, 42).fixed["test"]
    with torch.no_grad():
        predicted = model.eval()(prompts.interleaved(), num_loops=3).logits[:, ::2, 0]
    squares = (predicted - prompts.y).square() / 2
    metrics = result["metrics"]["test"]
    assert metrics["last_point_error"] == pytest.approx(squares[:, -1].mean().item(), rel=1e-4)
    assert metrics["error"] == pytest.approx(squares.mean().item(), rel=1e-4)
    assert metrics["standard_error"] == pytest.approx(squares[:, -1].std().item() / 8, rel=1e-4)
    assert result["baselines"]["least_squares"]["last_point_error"] < 1e-3
    rows = {name: read_rows(tmp_path / "run", "test", name) for name in ROWS}
    assert [row["trained"] for row in rows["by_loop"]] == 3 * [True] + 6 * [False]
    assert [row["loop"] for row in rows["probe"]] == [*range(1, 10)]
    own = [row for row in rows["by_position"] if row["predictor"] == "this model"]
    assert [row["point"] for row in own] == [1, 2, 3, 4]
    assert all(row["low"] < row["error"] < row["high"] for row in own)
    assert own[-1]["error"] == pytest.approx(metrics["last_point_error"])


def test_a_runs_page_has_its_baselines_and_plots(values, tmp_path):
    values |= {"function_class": "noisy", "noise": 0.5, "baselines": ["ridge", "lasso"], "max_steps": 2}
    run_experiment(read_experiment(values))
    page = (tmp_path / "run" / "README.md").read_text()
    assert "![scores by position and by loop](scores.png)" in page
    assert (tmp_path / "run" / "scores.png").is_file()
    assert "| &emsp;ridge, Bayes optimal | error " in page
    assert "| &emsp;Lasso | last point error " in page
    assert "† Measured at the last point of the first 256 prompts" in page
    assert "| test standard error of the last point error | " in page


def test_a_stopped_run_resumes_to_the_same_curve(values):
    with stopping_at(6, InContextWorkload), pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(values))
    run_experiment(read_experiment(values))
    run_experiment(read_experiment({**values, "experiment_name": "whole"}))
    folder = Path(values["output_root"])
    assert_same_run(folder / "whole", folder / "run")


def test_training_prompts_depend_on_the_seed_and_evaluation_does_not(values):
    workload = read_experiment(values).workload
    one, other = load_prompts(workload, 1), load_prompts(workload, 2)
    assert not torch.equal(one.batch([0], 0)["labels"], other.batch([0], 0)["labels"])
    assert torch.equal(one.fixed["test"].y, other.fixed["test"].y)
    assert not torch.equal(one.fixed["test"].y, draw(workload, 40, torch.Generator().manual_seed(1)).y)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"function_class": "linaer"}, ("'function_class'", "linaer", "'linear'")),
        ({"noise": 0.1}, ("'noise'", "'noisy'")),
        ({"function_class": "noisy"}, ("'noise'", "positive")),
        ({"nonzero": 2}, ("'nonzero'", "'sparse'")),
        ({"function_class": "sparse", "nonzero": 3}, ("'nonzero'", "at most n_dims, 2")),
        ({"n_dims": 0}, ("'n_dims'", "at least 1")),
        ({"n_points": 0}, ("'n_points'", "at least 1")),
        ({"n_dims_truncated": 3}, ("'n_dims_truncated'", "at most n_dims, 2", "got 3")),
        ({"n_dims_truncated": 0}, ("'n_dims_truncated'", "at least 1")),
        (
            {"function_class": "sparse", "nonzero": 2, "n_dims_truncated": 1},
            ("'nonzero'", "at most n_dims_truncated, 1"),
        ),
        ({"function_class": "decision_tree", "noise": 0.1}, ("'noise'", "'noisy'")),
        ({"model": {"n_layer": 0}}, ("'n_layer'", "at least 1")),
        ({"model": {"loops": {"num_loops": 3, "window": 2}, "injection": {"scale_per_loop": True}}}, ("'window'", "3")),
        (
            {"adapter": [{"kind": "tt_lora", "modes": ["in", "out"], "loops": "all"}]},
            ("'window'", "at least num_loops"),
        ),
        ({"adapter": [{"kind": "tt_lora", "modes": ["in", "loop", "out"]}]}, ("'window'", "a delta or a scale")),
        ({"evaluation_prompts": 1}, ("'evaluation_prompts'", "at least 2")),
        ({"curriculum": 3}, ("'curriculum'", "an object", "got 3")),
        ({"curriculum": {"dim": {"start": 1, "interval": 2}}}, ("'dim'", "'dims'")),
        ({"curriculum": {"dims": 1}}, ("'dims'", "an object", "got 1")),
        ({"curriculum": {"dims": {"start": 1}}}, ("'interval'", "required", "over dims")),
        ({"curriculum": {"dims": {"start": 1, "intervall": 2}}}, ("'intervall'", "'interval'")),
        (
            {"curriculum": {"dims": {"start": 1, "interval": 2, "end": 2}}},
            ("'end'", "known are increment, interval, start"),
        ),
        ({"curriculum": {"dims": {"start": 1.5, "interval": 2}}}, ("'start'", "integer")),
        ({"curriculum": {"dims": {"start": 0, "interval": 2}}}, ("'start'", "at least 1")),
        ({"curriculum": {"points": {"start": 1, "interval": 0}}}, ("'interval'", "at least 1")),
        ({"curriculum": {"points": {"start": 1, "increment": 0, "interval": 2}}}, ("'increment'", "at least 1")),
        ({"curriculum": {"dims": {"start": 3, "interval": 2}}}, ("'start'", "at most the dims of the run, 2")),
        ({"curriculum": {"points": {"start": 5, "interval": 2}}}, ("'start'", "at most the points of the run, 4")),
        ({"curriculum": {"loops": {"start": 4, "interval": 2}}}, ("'start'", "at most the loops of the run, 3")),
        (
            {"curriculum": {"dims": {"start": 2, "interval": 2}}, "n_dims_truncated": 1},
            ("'start'", "at most the dims of the run, 1"),
        ),
        ({"model": {"layers": 3}}, ("'layers'", "n_layer")),
        ({"model": {"loops": {"num_loops": 0}}}, ("'num_loops'", "at least 1")),
        ({"model": {"loops": {"stop_tolerance": 0.1}}}, ("'stop_tolerance'",)),
        ({"model": {"hidden_size": 15}}, ("'hidden_size'",)),
        ({"model": {"loops": 3}}, ("'loops'", "an object", "got 3")),
        ({"model": {"positions": 3}}, ("'positions'", "an object", "got 3")),
        ({"model": {"positions": {"number": 8}}}, ("'number'", "known are attend_last, keep_last")),
        ({"model": {"positions": {"keep_last": -1}}}, ("'keep_last'", "at least 0")),
        ({"model": {"positions": {"keep_last": 2.5}}}, ("'keep_last'", "integer")),
        ({"model": {"positions": {"attend_last": 0}}}, ("'attend_last'", "at least 1")),
        ({"train_sampling_strategy": "group_by_length"}, ("'train_sampling_strategy'", "same length")),
        ({"task_name": "rte"}, ("'task_name'", "in_context")),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes, parts, values, tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        run_experiment(read_experiment({**values, **changes}))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [None, {}, {"keep_last": 2}, {"attend_last": 3}], ids=str)
def test_a_model_has_as_many_positions_as_a_prompt(given, values):
    looped = read_experiment({**values, "model": {**values["model"], "positions": given}}).workload.looped
    assert looped.positions == {"number": 8, "keep_last": None, "attend_last": None, **(given or {})}
