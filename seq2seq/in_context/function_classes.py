"""Function classes: what is learned from the examples of a prompt, drawn anew for each prompt.

    x            (batch, points, dims)     standard normal; only the first ``active`` of its dims are not zero
    y            (batch, points)           f(x), with f drawn for each prompt, a function of the active dims

    linear            y = w x, w standard normal
    noisy             the same plus noise of standard deviation sigma
    sparse            w has s entries that are not zero, at random dims
    relu              y = a relu(W x) / sqrt(h / 2), W (h, dims) and a (h,) standard normal: a network of two layers
    decision_tree     y = a leaf, standard normal, of a full binary tree of depth 4 whose nodes read the sign of one dim

Setups of Garg et al. 2022, arXiv:2208.01066. The error of predicting 0 is E[y^2]: active in linear and relu classes, s
in sparse ones, 1 in trees.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters.validation import nearest_name, refuse

WHERE = "a sample"
HIDDEN = 16
"""h, the hidden units of the network of two layers."""

DEPTH = 4
"""Decisions from the root of a decision tree to a leaf."""


@dataclass(frozen=True)
class Prompts:
    """Examples, x (batch, points, dims) and y (batch, points)."""

    x: Tensor
    y: Tensor

    def interleaved(self) -> Tensor:
        """x_1, y_1, x_2, y_2, ... as vectors (batch, 2 points, dims); y is in the first of its dims."""
        y = torch.zeros_like(self.x)
        y[..., 0] = self.y
        return torch.stack([self.x, y], dim=2).flatten(1, 2)  # (batch, points, 2, dims) -> (batch, 2 points, dims)

    def encoded(self) -> dict[str, Tensor]:
        """What the trainer reads: inputs (batch, 2 points, dims), labels (batch, points)."""
        return {"inputs": self.interleaved(), "labels": self.y}


Draw = Callable[[Tensor, torch.Generator, float, int], Tensor]


def linear(x: Tensor, generator: torch.Generator, noise: float, nonzero: int) -> Tensor:
    w = torch.randn(len(x), x.shape[-1], generator=generator)
    return torch.einsum("bpd,bd->bp", x, w)  # (batch, points, dims) x (batch, dims)


def noisy(x: Tensor, generator: torch.Generator, noise: float, nonzero: int) -> Tensor:
    y = linear(x, generator, noise, nonzero)
    return y + noise * torch.randn(y.shape, generator=generator)


def sparse(x: Tensor, generator: torch.Generator, noise: float, nonzero: int) -> Tensor:
    w = torch.randn(len(x), x.shape[-1], generator=generator)
    order = torch.rand(w.shape, generator=generator).argsort(-1)  # a random order of the dims
    return torch.einsum("bpd,bd->bp", x, w * (order < nonzero))


def relu(x: Tensor, generator: torch.Generator, noise: float, nonzero: int) -> Tensor:
    inner = torch.randn(len(x), HIDDEN, x.shape[-1], generator=generator)
    outer = torch.randn(len(x), HIDDEN, generator=generator)
    hidden = torch.einsum("bpd,bhd->bph", x, inner).relu()  # (batch, points, h)
    return torch.einsum("bph,bh->bp", hidden, outer) / (HIDDEN / 2) ** 0.5


def decision_tree(x: Tensor, generator: torch.Generator, noise: float, nonzero: int) -> Tensor:
    inner, leaves = 2**DEPTH - 1, 2**DEPTH  # the children of node n are 2 n + 1 and 2 n + 2
    reads = torch.randint(x.shape[-1], (len(x), inner), generator=generator)  # the dim that a node reads
    values = torch.randn(len(x), leaves, generator=generator)
    positive = (x > 0).long()
    node = torch.zeros(x.shape[:2], dtype=torch.long)  # (batch, points), at the root
    for _ in range(DEPTH):
        dim = reads.gather(1, node)
        node = 2 * node + 1 + positive.gather(2, dim[..., None])[..., 0]
    return values.gather(1, node - inner)


FUNCTION_CLASSES: Mapping[str, Draw] = {
    "linear": linear,
    "noisy": noisy,
    "sparse": sparse,
    "relu": relu,
    "decision_tree": decision_tree,
}
"""Function classes by name."""


def sample(
    name: str,
    batch: int,
    points: int,
    dims: int,
    generator: torch.Generator,
    active: int | None = None,
    noise: float = 0.0,
    nonzero: int = 1,
) -> Prompts:
    """Draw prompts of a function class, on the CPU.

    Args:
        name: of ``FUNCTION_CLASSES``.
        batch, points, dims: sizes.
        generator: where random numbers come from.
        active: dims that are not zero, at most ``dims``; None for all.
        noise: sigma, of "noisy".
        nonzero: s, of "sparse"; all active dims if it has more.

    Raises:
        ConfigurationError: there is no such class, or a size is out of range.
    """
    active = dims if active is None else active
    if name not in FUNCTION_CLASSES:
        refuse("name", "is a function class of vectors", repr(name), nearest_name(name, FUNCTION_CLASSES), WHERE)
    for key, value in (("batch", batch), ("points", points), ("active", active), ("nonzero", nonzero)):
        if value < 1:
            refuse(key, "must be at least 1", value, "write a positive number", WHERE)
    if active > dims:
        refuse("active", f"is at most dims, {dims}", active, "lower it", WHERE)
    if noise < 0 or (noise and name != "noisy"):
        refuse("noise", 'is not negative, and 0 but in "noisy"', noise, "change it", WHERE)
    x = torch.randn(batch, points, active, generator=generator)
    y = FUNCTION_CLASSES[name](x, generator, noise, nonzero)
    return Prompts(F.pad(x, (0, dims - active)), y)
