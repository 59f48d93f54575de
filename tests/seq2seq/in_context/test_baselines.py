"""Baselines against closed forms and scikit-learn, and which of them a run has."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.in_context import gradient_descent
from seq2seq.in_context.baselines import (
    ALPHA,
    FITTED_PROMPTS,
    NEIGHBOURS,
    averaging,
    least_squares,
    nearest,
    predictors,
    ridge,
    squares_of,
)
from seq2seq.in_context.errors import last_point_metrics, metrics_of
from seq2seq.in_context.function_classes import Prompts, sample
from seq2seq.in_context.regression import Regression
from seq2seq.running.runner import run_experiment


def prompts_of(name, batch=200, points=9, dims=4, seed=0, **options):
    return sample(name, batch, points, dims, torch.Generator().manual_seed(seed), **options)


def exact_prompts(batch=50, points=9, dims=4):
    """Linear prompts whose y are exact in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, points, dims, generator=generator, dtype=torch.float64)
    w = torch.randn(batch, dims, 1, generator=generator, dtype=torch.float64)
    return Prompts(x, (x @ w)[..., 0])


def test_least_squares_is_exact_for_as_many_points_as_dims():
    found = squares_of(predictors()["least_squares"], exact_prompts(), 4).mean(0)[0]
    assert found[4:].max() < 1e-10
    assert found[:4].min() > 0.1


@pytest.mark.parametrize("active", [4, 2])
def test_predicting_zero_has_error_one(active):
    metrics = metrics_of(squares_of(predictors()["zero"], prompts_of("linear", 20000, active=active), active), 1)
    assert abs(metrics["last_point_error"] - 1) < 3 * metrics["standard_error"]
    assert metrics["standard_error"] < 0.03
    assert "error_at_3b" not in metrics  # a baseline has no loops


def test_baselines_are_divided_by_the_dims_that_are_not_zero():
    prompts = prompts_of("linear", 20000, active=2)
    task = Regression("linear", 4, 2)
    prepared = SimpleNamespace(data=SimpleNamespace(fixed={"test": prompts}))
    assert task.baselines()["zero"].measure(prepared, "test")["error"] == pytest.approx(1, rel=0.05)
    assert task.baseline_scores(prompts)["predicting 0"].mean() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("seen", [1, 3, 4, 8])
def test_ridge_without_noise_is_least_squares(seen):
    prompts = exact_prompts()
    for noise in (1e-5, 1e-12):
        np.testing.assert_allclose(ridge(prompts, seen, noise), least_squares(prompts, seen), atol=1e-4)


@pytest.mark.parametrize("seen", [1, 3, 8])
def test_ridge_is_the_posterior_mean(seen):
    """The oracle conditions the joint Gaussian of (y_1, ..., y_k, f(x)) on the y: no w appears in it."""
    prompts, noise = prompts_of("noisy", batch=5, noise=0.7), 0.7
    for index, (x, y) in enumerate(zip(prompts.x.double().numpy(), prompts.y.double().numpy(), strict=True)):
        covariance = x[:seen] @ x[:seen].T + noise**2 * np.eye(seen)  # of y
        expected = x[seen] @ x[:seen].T @ np.linalg.solve(covariance, y[:seen])
        assert ridge(prompts, seen, noise)[index] == pytest.approx(expected)


def test_ridge_is_the_best_linear_baseline_under_noise():
    prompts, table = prompts_of("noisy", batch=4000, noise=1.0), predictors(1.0)
    error = {
        name: squares_of(table[name], prompts, 4)[:, 0, -1].mean() for name in ("ridge", "least_squares", "averaging")
    }
    assert error["ridge"] < 0.9 * min(error["least_squares"], error["averaging"])


def test_averaging_is_a_step_of_gradient_descent():
    prompts = prompts_of("linear", batch=3)
    w = torch.zeros(3, 4, requires_grad=True)
    loss = (torch.einsum("bpd,bd->bp", prompts.x[:, :6], w) - prompts.y[:, :6]).square().mean(1).sum() / 2
    loss.backward()
    np.testing.assert_allclose(averaging(prompts, 6), -(w.grad * prompts.x[:, 6]).sum(-1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seen", [1, 2, 8])
def test_nearest_neighbours_are_those_of_scikit_learn(seen):
    prompts = prompts_of("relu", batch=20)
    expected = [
        KNeighborsRegressor(min(NEIGHBOURS, seen)).fit(x[:seen], y[:seen]).predict(x[seen:][:1])[0]
        for x, y in zip(prompts.x.numpy(), prompts.y.numpy(), strict=True)
    ]
    np.testing.assert_allclose(nearest(prompts, seen), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "model"),
    [("lasso", Lasso(ALPHA, fit_intercept=False)), ("decision_tree", DecisionTreeRegressor(random_state=0))],
)
def test_fitted_baselines_are_those_of_scikit_learn(name, model):
    prompts = prompts_of("sparse", batch=1, points=20, nonzero=2)
    x, y = prompts.x[0].double().numpy(), prompts.y[0].double().numpy()
    expected = (model.fit(x[:-1], y[:-1]).predict(x[-1:])[0] - y[-1]) ** 2 / 4
    assert squares_of(predictors()[name], prompts, 4)[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_the_network_learns_the_functions_of_its_class():
    prompts = prompts_of("relu", batch=40, points=24, dims=2)
    assert (
        squares_of(predictors()["network"], prompts, 4).mean()
        < 0.5 * squares_of(predictors()["zero"], prompts, 4).mean()
    )


def test_networks_train_independently_and_repeatably():
    prompts = prompts_of("relu", batch=6, dims=2)
    alone = Prompts(prompts.x[2:3], prompts.y[2:3])
    together = gradient_descent.network(prompts, 8)
    np.testing.assert_array_equal(together, gradient_descent.network(prompts, 8))
    np.testing.assert_allclose(together[2], gradient_descent.network(alone, 8)[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, predictor in predictors(0.5).items()])
def test_no_baseline_reads_the_answer(name):
    """A prediction does not depend on the y at its point, or on what comes later."""
    one = prompts_of("linear", batch=4)
    other = Prompts(one.x.clone(), one.y.clone())
    other.y[:, 5:] += 3
    other.x[:, 6:] -= 1
    predict = predictors(0.5)[name].predict
    np.testing.assert_array_equal(predict(one, 5), predict(other, 5))


def test_fitted_baselines_are_measured_on_the_first_prompts_at_the_last_point():
    table, shape = predictors(), {name: (FITTED_PROMPTS, 1, 1) for name, one in predictors().items() if one.fitted}
    assert {*shape} == {"lasso", "decision_tree", "boosted_trees", "network"}
    prompts = prompts_of("linear", batch=FITTED_PROMPTS + 3, dims=2, points=4)
    assert squares_of(table["lasso"], prompts, 4).shape == shape["lasso"]
    assert squares_of(table["zero"], prompts, 4).shape == (FITTED_PROMPTS + 3, 1, 4)
    assert set(last_point_metrics(np.ones(3))) == {"last_point_error", "standard_error", "average_metrics"}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"baselines": ["ridge"]}, ("'baselines'", "ridge", "no noise")),
        ({"baselines": ["lass"]}, ("'baselines'", "lass", "'lasso'")),
        ({"probe": True, "evaluation_prompts": 10}, ("'probe'", "evaluation_prompts", "10")),
        ({"probe": True, "n_points": 1}, ("'probe'", "2 points")),
    ],
    ids=str,
)
def test_what_a_function_class_has_not_is_refused(changes, parts, tmp_path):
    values = {"experiment_name": "run", "output_root": str(tmp_path), "workload": "in_context", "use_cpu": True}
    with pytest.raises(ConfigurationError) as caught:
        run_experiment(read_experiment({**values, **changes}))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not (tmp_path / "run").exists()
