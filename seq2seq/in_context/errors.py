"""The one metric of in-context learning: squared error / dims, by loop and position.

    errors       (loops, points)      mean over prompts of (prediction - y)^2 / dims

Predicting 0 in a linear class gives 1 in expectation. What a run reports is the error of its last loop.
"""

import numpy as np

BEYOND = 3
"""Evaluation runs so many times the trained loops."""


def errors(predictions: np.ndarray, y: np.ndarray, dims: int) -> np.ndarray:
    """The errors (loops, points) of predictions (prompts, loops, points), where y is (prompts, points)."""
    squares = (np.asarray(predictions, dtype=np.float64) - np.asarray(y, dtype=np.float64)[:, None]) ** 2
    return squares.mean(0) / dims


def metrics_of(found: np.ndarray, loops: int) -> dict[str, float]:
    """The metrics of errors (loops or more, points) at the trained number of loops, and at the last one."""
    at = found[min(loops, len(found)) - 1]
    return {
        "error": float(at.mean()),
        "last_point_error": float(at[-1]),
        f"error_at_{BEYOND}b": float(found[-1, -1]),
        "average_metrics": -float(at[-1]),
    }
