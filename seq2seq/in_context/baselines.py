"""What a function of the examples so far predicts: y at point k from the k - 1 points before it; 0 at the first."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.neighbors import KNeighborsRegressor

from seq2seq.in_context.errors import errors, metrics_of
from seq2seq.in_context.function_classes import Prompts
from seq2seq.workload import Prepared

Predict = Callable[[Prompts, int], np.ndarray]
NEIGHBOURS = 3


def least_squares(prompts: Prompts, seen: int) -> np.ndarray:
    """w x with the least norm of all w that fit best."""
    x, y = prompts.x.double(), prompts.y.double()
    w = torch.linalg.pinv(x[:, :seen]) @ y[:, :seen, None]  # (prompts, dims, seen) x (prompts, seen, 1)
    return (x[:, seen, None] @ w)[:, 0, 0].numpy()  # (prompts, 1, dims) x (prompts, dims, 1)


def averaging(prompts: Prompts, seen: int) -> np.ndarray:
    """w x with w the mean of y x."""
    w = (prompts.y[:, :seen, None] * prompts.x[:, :seen]).mean(1)  # (prompts, dims)
    return (w * prompts.x[:, seen]).sum(-1).numpy()


def nearest(prompts: Prompts, seen: int) -> np.ndarray:
    """The mean y of the nearest points."""
    count = min(NEIGHBOURS, seen)
    fitted = (KNeighborsRegressor(count).fit(x[:seen], y[:seen]) for x, y in zip(prompts.x, prompts.y, strict=True))
    return np.array([model.predict(x[None, seen])[0] for model, x in zip(fitted, prompts.x, strict=True)])


def zero(prompts: Prompts, seen: int) -> np.ndarray:
    """0."""
    return np.zeros(len(prompts.x))


BASELINES: dict[str, tuple[str, Predict]] = {
    "zero": ("predicting 0", zero),
    "least_squares": ("least squares", least_squares),
    "averaging": ("averaging y x", averaging),
    "nearest_neighbours": (f"{NEIGHBOURS} nearest neighbours", nearest),
}
"""Label and function by name."""


def predictions_of(name: str, prompts: Prompts) -> np.ndarray:
    """Predictions (prompts, 1, points) of a baseline."""
    predict = BASELINES[name][1]
    points = [np.zeros(len(prompts.x)), *(predict(prompts, seen) for seen in range(1, prompts.x.shape[1]))]
    return np.stack(points, axis=-1)[:, None]


def measure(name: str, prepared: Prepared, split: str) -> dict[str, float]:
    """The metrics of a baseline."""
    prompts = prepared.data.fixed[split]
    return metrics_of(errors(predictions_of(name, prompts), prompts.y.numpy(), prompts.x.shape[-1]), 1)
