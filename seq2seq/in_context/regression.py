"""Function classes on vectors: y at every x of a prompt, scored by squared error / dims."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seq2seq.in_context.baselines import measure, predictors, squares_of
from seq2seq.in_context.curriculum import Sizes
from seq2seq.in_context.errors import metrics_of, squared_errors
from seq2seq.in_context.function_classes import Prompts, sample
from seq2seq.in_context.tasks import ERROR
from seq2seq.workload import Baseline


@dataclass(frozen=True)
class Regression:
    """A function class of ``seq2seq.in_context.function_classes``.

    Args:
        name: of the function class.
        dims: of an x.
        active: the dims that are not zero in evaluation, by which errors are divided.
        noise, nonzero: options of "noisy" and "sparse".
    """

    name: str
    dims: int
    active: int
    noise: float = 0.0
    nonzero: int = 1

    measure = ERROR
    least_points = 1

    @property
    def label(self) -> str:
        return f"{self.name} in {self.dims} dims"

    def model_sizes(self, points: int) -> dict[str, Any]:
        return {"input_size": self.dims, "output_size": 1, "positions": {"number": 2 * points}}

    def draw(self, batch: int, sizes: Sizes, generator: torch.Generator) -> Prompts:
        options = {"noise": self.noise, "nonzero": self.nonzero}
        return sample(self.name, batch, sizes.points, self.dims, generator, sizes.dims, **options)

    def read(self, by_loop: Tensor, answers: int) -> Tensor:
        return by_loop[:, :, ::2, 0].transpose(0, 1)  # at the positions of x: (batch, loops, points)

    def losses(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return (predictions.float() - labels[:, None].float()).square()

    def scores(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return squared_errors(predictions, labels, self.active)

    def at_end(self, scores: np.ndarray) -> np.ndarray:
        return scores[:, :, -1]

    def metrics(self, predictions: np.ndarray, labels: np.ndarray, loops: int) -> dict[str, float]:
        return metrics_of(self.scores(predictions, labels), loops)

    def baselines(self) -> dict[str, Baseline]:
        return {
            name: Baseline(predictor.label, partial(measure, predictor, self.active), predictor.unsupported)
            for name, predictor in predictors(self.noise).items()
        }

    def baseline_scores(self, prompts: Prompts) -> dict[str, np.ndarray]:
        return {
            predictor.label: squares_of(predictor, prompts, self.active)[:, 0]
            for predictor in predictors(self.noise).values()
            if not predictor.fitted and predictor.unsupported is None
        }

    def fitted_errors(self, baselines: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        return {
            predictor.label: baselines[name]["last_point_error"]
            for name, predictor in predictors(self.noise).items()
            if predictor.fitted and name in baselines
        }
