"""What a function of the examples so far predicts: y at a point from the points before it; 0 at the first.

    zero, averaging, least_squares, ridge, nearest     of all prompts at once, at every point
    lasso, tree, boosting                              one fit of scikit-learn for each prompt
    network                                            gradient descent, see ``gradient_descent``

The last four are measured at the last point of the first ``FITTED_PROMPTS`` prompts only, so that they take seconds.
Settings of Garg et al. 2022, arXiv:2208.01066.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from sklearn.tree import DecisionTreeRegressor

from seq2seq.in_context.errors import last_point_metrics, metrics_of, squared_errors
from seq2seq.in_context.function_classes import Prompts
from seq2seq.in_context.gradient_descent import network
from seq2seq.workload import Prepared

FITTED_PROMPTS = 256
"""Prompts on which the baselines with a fit for each prompt are measured, at the last point."""

NEIGHBOURS = 3
ALPHA = 0.01
"""The weight of Lasso's penalty."""

Predict = Callable[[Prompts, int], np.ndarray]
"""From prompts and the number of points seen, 1 or more, to predictions (prompts,) at the next point."""


class Predictor(NamedTuple):
    """A baseline: its label, its predictions, and whether it is measured at the last point only.

    ``unsupported`` is the reason why the run's function class has no such baseline, or None.
    """

    label: str
    predict: Predict
    fitted: bool = False
    unsupported: str | None = None


def zero(prompts: Prompts, seen: int) -> np.ndarray:
    """0."""
    return np.zeros(len(prompts.x))


def averaging(prompts: Prompts, seen: int) -> np.ndarray:
    """w x with w the mean of y x."""
    w = (prompts.y[:, :seen, None] * prompts.x[:, :seen]).mean(1)  # (prompts, dims)
    return (w * prompts.x[:, seen]).sum(-1).numpy()


def least_squares(prompts: Prompts, seen: int) -> np.ndarray:
    """w x with the least norm of all w that fit best."""
    x = prompts.x.double()
    return (least_squares_weights(prompts, seen) * x[:, seen]).sum(-1).numpy()


def least_squares_weights(prompts: Prompts, seen: int) -> torch.Tensor:
    """The w (prompts, dims), float64, with the least norm of all that fit the points seen best."""
    x, y = prompts.x[:, :seen].double(), prompts.y[:, :seen].double()
    return (torch.linalg.pinv(x) @ y[..., None])[..., 0]  # (prompts, dims, seen) x (prompts, seen, 1)


def ridge(prompts: Prompts, seen: int, noise: float) -> np.ndarray:
    """w x with the posterior mean of w ~ N(0, I) given y = w x + noise: X^T (X X^T + noise^2 I)^-1 y, Bayes optimal."""
    x, y = prompts.x.double(), prompts.y.double()
    points = x[:, :seen]  # X (prompts, seen, dims)
    gram = points @ points.mT + noise**2 * torch.eye(seen, dtype=x.dtype)  # X X^T + noise^2 I
    w = (points.mT @ torch.linalg.pinv(gram, hermitian=True) @ y[:, :seen, None])[..., 0]  # (prompts, dims)
    return (w * x[:, seen]).sum(-1).numpy()


def nearest(prompts: Prompts, seen: int) -> np.ndarray:
    """The mean y of the nearest points."""
    distances = torch.cdist(prompts.x[:, seen, None], prompts.x[:, :seen])[:, 0]  # (prompts, seen)
    nearest = distances.topk(min(NEIGHBOURS, seen), largest=False).indices  # (prompts, neighbours)
    return prompts.y[:, :seen].gather(1, nearest).mean(1).numpy()


def fit_each(make: Callable[[], Any], prompts: Prompts, seen: int) -> np.ndarray:
    """What a regressor of scikit-learn predicts, fitted to each prompt alone."""
    x, y = prompts.x.double().numpy(), prompts.y.double().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Lasso's last digits
        return np.array([make().fit(a[:seen], b[:seen]).predict(a[seen:][:1])[0] for a, b in zip(x, y, strict=True)])


REGRESSORS: Mapping[str, tuple[str, Callable[[], Any]]] = {
    "lasso": ("Lasso", partial(Lasso, ALPHA, fit_intercept=False)),
    "decision_tree": ("decision tree", partial(DecisionTreeRegressor, random_state=0)),
    "boosted_trees": (
        "gradient-boosted trees",
        partial(GradientBoostingRegressor, n_estimators=50, max_depth=4, random_state=0),
    ),
}
"""Label and regressor of scikit-learn by name."""


def predictors(noise: float = 0.0) -> dict[str, Predictor]:
    """The baselines by name.

    Args:
        noise: the standard deviation of the noise of y.
    """
    exact = None if noise else "y has no noise, so that it is least squares"
    of_all = {
        "zero": Predictor("predicting 0", zero),
        "least_squares": Predictor("least squares", least_squares),
        "ridge": Predictor("ridge, Bayes optimal", partial(ridge, noise=noise), unsupported=exact),
        "averaging": Predictor("averaging y x", averaging),
        "nearest_neighbours": Predictor(f"{NEIGHBOURS} nearest neighbours", nearest),
    }
    of_each = {name: (label, partial(fit_each, make)) for name, (label, make) in REGRESSORS.items()}
    of_each["network"] = ("two-layer network", network)
    return of_all | {name: Predictor(label, predict, fitted=True) for name, (label, predict) in of_each.items()}


NOTES = {
    name: f"Measured at the last point of the first {FITTED_PROMPTS} prompts"
    for name, predictor in predictors().items()
    if predictor.fitted
}
"""Footnotes of the baselines by name."""


def squares_of(predictor: Predictor, prompts: Prompts, dims: int) -> np.ndarray:
    """The squared errors / dims (prompts, 1, points) of a baseline; (prompts, 1, 1), at the last point, if fitted."""
    points = prompts.x.shape[1]
    if predictor.fitted:
        prompts = Prompts(prompts.x[:FITTED_PROMPTS], prompts.y[:FITTED_PROMPTS])
    seen = range(points - 1 if predictor.fitted else 0, points)
    found = [predictor.predict(prompts, k) if k else np.zeros(len(prompts.x)) for k in seen]
    return squared_errors(np.stack(found, axis=-1)[:, None], prompts.y[:, seen.start :].numpy(), dims)


def measure(predictor: Predictor, dims: int, prepared: Prepared, split: str) -> dict[str, float]:
    """The metrics of a baseline; of a fitted one those of the last point."""
    squares = squares_of(predictor, prepared.data.fixed[split], dims)
    return last_point_metrics(squares[:, 0, -1]) if predictor.fitted else metrics_of(squares, 1)
