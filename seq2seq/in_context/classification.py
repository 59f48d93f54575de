"""Function classes on tokens: answers in tokens, scored by their exact match.

matches     (prompts, loops, answers)    1 where the most likely token is the answer's
accuracy    their product over answers, averaged over prompts
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seq2seq.in_context.curriculum import Sizes
from seq2seq.in_context.errors import BEYOND
from seq2seq.in_context.tasks import ACCURACY
from seq2seq.in_context.token_tasks import Addition, PHop, TokenPrompts, one_hop
from seq2seq.workload import Baseline, Prepared

LABELS: Mapping[str, str] = {
    "uniform": "a uniform guess",
    "majority": "the most frequent answer",
    "one_hop": "the rule of one hop",
    "last_token": "the last token",
}
"""Baselines: what tables call them."""

SEEN = 10_000
"""Prompts from which the most frequent answer is counted, with a seed of their own."""


@dataclass(frozen=True)
class Classification:
    """A function class of ``seq2seq.in_context.token_tasks``."""

    tokens: PHop | Addition

    measure = ACCURACY

    @property
    def label(self) -> str:
        return self.tokens.label

    @property
    def least_points(self) -> int:
        return self.tokens.least_points

    def model_sizes(self, points: int) -> dict[str, Any]:
        return {"vocab_size": self.tokens.vocabulary, "positions": {"number": self.tokens.length(points)}}

    def draw(self, batch: int, sizes: Sizes, generator: torch.Generator) -> TokenPrompts:
        return self.tokens.draw(batch, sizes.points, generator)

    def read(self, by_loop: Tensor, answers: int) -> Tensor:
        return by_loop[:, :, -answers:].transpose(0, 1)  # (batch, loops, answers, vocabulary)

    def losses(self, predictions: Tensor, labels: Tensor) -> Tensor:
        targets = labels[:, None].expand(predictions.shape[:-1])  # (batch, loops, answers)
        return F.cross_entropy(predictions.float().flatten(0, 2), targets.flatten(), reduction="none").view_as(targets)

    def scores(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return (predictions.argmax(-1) == labels[:, None]).astype(np.float64)

    def at_end(self, scores: np.ndarray) -> np.ndarray:
        return scores.prod(-1)

    def metrics(self, predictions: np.ndarray, labels: np.ndarray, loops: int) -> dict[str, float]:
        whole = self.at_end(self.scores(predictions, labels))  # (prompts, loops)
        trained = torch.as_tensor(predictions[:, loops - 1 : loops])
        loss = self.losses(trained, torch.as_tensor(labels)).double().mean()
        beyond = {f"accuracy_at_{BEYOND}b": float(whole[:, -1].mean())}
        return accuracy_metrics(whole[:, loops - 1]) | beyond | {"loss": float(loss)}

    def baselines(self) -> dict[str, Baseline]:
        rules = ("one_hop", "last_token")
        unsupported = {} if isinstance(self.tokens, PHop) else dict.fromkeys(rules, "it is a rule of p_hop")
        return {
            name: Baseline(label, partial(self.measured, name), unsupported.get(name)) for name, label in LABELS.items()
        }

    def baseline_scores(self, prompts: TokenPrompts) -> dict[str, np.ndarray]:
        found = {name: baseline for name, baseline in self.baselines().items() if baseline.unsupported is None}
        return {baseline.label: self.matches(name, prompts) for name, baseline in found.items()}

    def fitted_errors(self, baselines: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        return {}

    def measured(self, name: str, prepared: Prepared, split: str) -> dict[str, float]:
        """The metrics of a baseline on a split."""
        return accuracy_metrics(self.matches(name, prepared.data.fixed[split]).prod(-1))

    def matches(self, name: str, prompts: TokenPrompts) -> np.ndarray:
        """The probability (prompts, answers) that a baseline gives each token of the answer."""
        answers = prompts.answers
        if name == "uniform":
            return np.full(answers.shape, 1 / self.tokens.symbols)
        if name == "one_hop":
            return (one_hop(prompts.tokens)[:, None] == answers).double().numpy()
        if name == "last_token":
            return (prompts.tokens[:, -1:] == answers).double().numpy()
        points = self.points_of(prompts)
        seen = self.tokens.draw(SEEN, points, torch.Generator().manual_seed(0)).answers
        found, counts = seen.unique(dim=0, return_counts=True)
        return (found[counts.argmax()] == answers).double().numpy()

    def points_of(self, prompts: TokenPrompts) -> int:
        """The points of prompts of one length."""
        length = prompts.tokens.shape[1]
        return next(points for points in range(1, length + 1) if self.tokens.length(points) == length)


def accuracy_metrics(whole: np.ndarray) -> dict[str, float]:
    """The metrics of exact matches (prompts,)."""
    accuracy = float(whole.mean())
    error = float(whole.std(ddof=1)) / math.sqrt(len(whole))
    return {"accuracy": accuracy, "average_metrics": accuracy, "standard_error": error}
