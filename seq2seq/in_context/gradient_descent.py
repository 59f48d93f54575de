"""A network of two layers trained by gradient descent on the examples of a prompt, of all prompts at once.

    x            (prompts, points, dims)
    inner        (prompts, dims, HIDDEN)     W, of each prompt its own
    outer        (prompts, HIDDEN, 1)        a
    prediction   (prompts, points, 1)        relu(x W + c) a

A sum of the prompts' losses has each prompt's own gradients, and Adam works on each entry alone: this equals training
the networks one after the other.
"""

import numpy as np
import torch
from torch import Tensor

from seq2seq.in_context.function_classes import Prompts

HIDDEN = 100
STEPS = 200
LEARNING_RATE = 5e-3
SEED = 0


def network(prompts: Prompts, seen: int) -> np.ndarray:
    """Predictions (prompts,) at the point after those seen."""
    count, _, dims = prompts.x.shape
    x, y = prompts.x.float(), prompts.y[:, :seen, None].float()
    generator = torch.Generator().manual_seed(SEED)
    inner = torch.randn(dims, HIDDEN, generator=generator).div_(dims**0.5).repeat(count, 1, 1)
    outer = torch.randn(HIDDEN, 1, generator=generator).div_(HIDDEN**0.5).repeat(count, 1, 1)
    weights = [weight.requires_grad_() for weight in (inner, torch.zeros(count, 1, HIDDEN), outer)]
    optimizer = torch.optim.Adam(weights, LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            (predicted(x[:, :seen], *weights) - y).square().mean((1, 2)).sum().backward()
            optimizer.step()
    with torch.no_grad():
        return predicted(x[:, seen, None], *weights)[:, 0, 0].double().numpy()


def predicted(x: Tensor, inner: Tensor, bias: Tensor, outer: Tensor) -> Tensor:
    """The outputs (prompts, points, 1) of the networks."""
    return torch.baddbmm(bias, x, inner).relu() @ outer  # (prompts, points, dims) x (prompts, dims, HIDDEN)
