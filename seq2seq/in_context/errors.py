"""The one metric of in-context learning: squared error / dims, by loop and position.

    squared_errors  (prompts, loops, points)   (prediction - y)^2 / dims
    bootstrap_band  (2, ...)                   the 5th and the 95th percentile of that mean over resampled prompts

Predicting 0 in a linear class gives 1 in expectation. What a run reports is the error of its last loop.
"""

import math

import numpy as np

BEYOND = 3
"""Evaluation runs so many times the trained loops."""

CONFIDENCE = 0.9
"""Of a bootstrap band."""

RESAMPLES = 1000


def squared_errors(predictions: np.ndarray, y: np.ndarray, dims: int) -> np.ndarray:
    """The squared errors of predictions (prompts, loops, points), where y is (prompts, points)."""
    predictions, y = np.asarray(predictions, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return (predictions - y[:, None]) ** 2 / dims


def last_point_metrics(squares: np.ndarray) -> dict[str, float]:
    """The metrics of squared errors (prompts,) at the last point."""
    error = float(squares.mean())
    found = {"last_point_error": error, "average_metrics": -error}
    if len(squares) > 1:
        found["standard_error"] = float(squares.std(ddof=1)) / math.sqrt(len(squares))
    return found


def metrics_of(squares: np.ndarray, loops: int) -> dict[str, float]:
    """The metrics of squared errors (prompts, loops or more, points): at the trained number of loops, and beyond.

    ``standard_error`` is that of ``last_point_error``, over prompts.
    """
    trained = squares[:, min(loops, squares.shape[1]) - 1]  # (prompts, points)
    found = {"error": float(trained.mean()), **last_point_metrics(trained[:, -1])}
    if squares.shape[1] > loops:
        found[f"error_at_{BEYOND}b"] = float(squares[:, -1, -1].mean())
    return found


def bootstrap_band(squares: np.ndarray, seed: int = 0) -> np.ndarray:
    """The limits (2, ...) of a percentile bootstrap of the mean over the first dim of squares (prompts, ...).

    A resample has the same prompts at every loop and point. Efron, Tibshirani 1993, chapter 13.
    """
    prompts = len(squares)
    counts = np.random.default_rng(seed).multinomial(prompts, [1 / prompts] * prompts, size=RESAMPLES)
    means = (counts / prompts) @ squares.reshape(prompts, -1)  # (resamples, prompts) x (prompts, everything else)
    outside = (1 - CONFIDENCE) / 2
    return np.quantile(means, [outside, 1 - outside], axis=0).reshape(2, *squares.shape[1:])
