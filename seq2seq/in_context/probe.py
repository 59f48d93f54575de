"""What each loop's state knows: a linear read-out of statistics of the examples, at the position of the last x.

    states       (loops, prompts, E)      at the last x, which has seen all examples before it
    xty          (prompts, dims)          X^T y of these examples: a step of gradient descent from 0
    weights      (prompts, dims)          their least-squares weights, where gradient descent ends

A ridge regression is fitted on the first half of the prompts, its penalty chosen within that half, and R^2 is measured
on the other: 1 is a perfect read-out, 0 that of the mean. It can be negative.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from torch import Tensor

from seq2seq.in_context.baselines import least_squares_weights
from seq2seq.in_context.errors import BEYOND
from seq2seq.in_context.function_classes import Prompts
from third_party.models.looped import LoopedModel

BATCH = 64
"""Prompts in a forward pass, which returns the states of all loops and positions."""

PENALTIES = np.logspace(-4, 4, 9)
LABELS: Mapping[str, str] = {"xty": r"$X^\top y$", "weights": "least-squares weights"}
"""What is read out, and what plots call it."""


def targets(prompts: Prompts) -> dict[str, np.ndarray]:
    """What is read out: (prompts, dims that are not zero) each, float64, of all examples but the last."""
    seen = prompts.x.shape[1] - 1
    prompts = Prompts(prompts.x[..., (prompts.x != 0).flatten(0, 1).any(0)], prompts.y)
    x, y = prompts.x[:, :seen].double(), prompts.y[:, :seen].double()
    return {
        "xty": torch.einsum("bpd,bp->bd", x, y).numpy(),
        "weights": least_squares_weights(prompts, seen).numpy(),
    }


@torch.no_grad()
def states_of(model: LoopedModel, prompts: Prompts) -> Tensor:
    """The states (loops, prompts, E) at the last x after each of 3 b loops."""
    loops, inputs = BEYOND * model.config.option("loops").num_loops, prompts.interleaved()
    was_training = model.training
    model.eval()
    try:
        batches = [
            model(inputs=part.to(model.device), num_loops=loops, output_states=True).states[:, :, -2].float().cpu()
            for part in inputs.split(BATCH)
        ]
    finally:
        model.train(was_training)
    return torch.cat(batches, dim=1)


def r2_of(states: np.ndarray, target: np.ndarray) -> float | None:
    """The mean R^2 over dims of a target (prompts, dims), read from states (prompts, E); None unless all are finite."""
    if not np.isfinite(states).all():
        return None
    half = len(states) // 2
    read_out = RidgeCV(PENALTIES).fit(states[:half], target[:half])
    return float(r2_score(target[half:], read_out.predict(states[half:])))


def probe_rows(model: LoopedModel, prompts: Prompts) -> list[dict[str, Any]]:
    """The R^2 of each target by loop."""
    found = targets(prompts)
    return [
        {"loop": loop, **{name: r2_of(states, target) for name, target in found.items()}}
        for loop, states in enumerate(states_of(model, prompts).double().numpy(), 1)
    ]
