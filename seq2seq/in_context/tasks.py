"""What data, model, trainer and metrics ask of a function class: vectors to regress or tokens to classify.

    Regression        y of vectors x, scored by squared error / dims       ``seq2seq.in_context.regression``
    Classification    answers in tokens, scored by their exact match       ``seq2seq.in_context.classification``

    predictions    (batch, loops, answers, ...)    what a model says, read where answers are predicted
    scores         (prompts, loops, answers)       float64, what bands and plots are made of

A task holds the options of its function class, and knows neither loops nor training.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from seq2seq.in_context.curriculum import Sizes
from seq2seq.workload import Baseline


class Measure(NamedTuple):
    """A metric of the answer: its key in rows, its axis in plots, and whether less of it is better."""

    key: str
    axis: str
    less_is_better: bool


ERROR = Measure("error", "squared error / dims", True)
ACCURACY = Measure("accuracy", "exact match", False)


def measure_of(keys: Any) -> Measure:
    """The measure that a row or the metrics of a run have."""
    return ACCURACY if ACCURACY.key in keys else ERROR


class Prompts(Protocol):
    """Prompts of any task."""

    def encoded(self) -> dict[str, Tensor]:
        """What the trainer reads: inputs (batch, length, ...), labels (batch, answers)."""


class Task(Protocol):
    """A function class with its options."""

    measure: Measure

    @property
    def label(self) -> str:
        """What tables call it."""

    @property
    def least_points(self) -> int:
        """Of the shortest prompt."""

    def model_sizes(self, points: int) -> dict[str, Any]:
        """Arguments of ``LoopedConfig`` for what goes in and comes out."""

    def draw(self, batch: int, sizes: Sizes, generator: torch.Generator) -> Any:
        """Prompts, on the CPU."""

    def read(self, by_loop: Tensor, answers: int) -> Tensor:
        """The predictions in a model's outputs (loops, batch, length, out)."""

    def losses(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """The training losses (batch, loops, answers) of predictions, where labels are (batch, answers)."""

    def scores(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The scores of each answer."""

    def at_end(self, scores: np.ndarray) -> np.ndarray:
        """The scores (prompts, loops) of the whole answer, or of the last point."""

    def metrics(self, predictions: np.ndarray, labels: np.ndarray, loops: int) -> dict[str, float]:
        """The metrics at the trained number of loops, and beyond."""

    def baselines(self) -> dict[str, Baseline]:
        """What it can be compared with, by name."""

    def baseline_scores(self, prompts: Any) -> Mapping[str, np.ndarray]:
        """The scores (prompts, answers) of the baselines that are plotted by position, by label."""

    def fitted_errors(self, baselines: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """What was measured at the last point alone, by label, among the measured baselines of a run."""
