"""The vector space of deltas: sums, multiples, norms and products of tensor trains, linear by linear.

    W -> W + T,  b -> b + c        T (out, in) a tensor train, scaling folded in;  c (out,) or none

    vector          x = {path of the linear: T}, {path: c}
    x + y, a x      T + T' at ranks r + r', a T;  a missing T or c is zero
    <x, y>          sum over paths of <T, T'> + <c, c'>, Frobenius;  ||x||^2 = <x, x>

No dense matrix is formed, except for one linear at a time if raw shapes differ.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TypeVar

import torch
from torch import Tensor

import t3nsor as t3
from adapters.algebra.entries import checked_biases, checked_trains
from adapters.algebra.low_rank import distance, inner_product
from adapters.algebra.sites import Sites

Self = TypeVar("Self", bound="DeltaVector")


class DeltaVector(Mapping[str, t3.TensorTrain]):
    """An immutable mapping from the path of a linear to the tensor train of its delta, with ``biases``.

    Args:
        trains: T (out, in) by path, of any floating dtype and device; copied to float64 on the CPU, without gradients.
        biases: c (out,) by path, likewise; only for paths that have a T.
        sites: positions of the linears in a single train for the whole model; None if each linear has its own train.

    Raises:
        ValueError: a value is not finite, or a bias has no T or another size.
    """

    def __init__(
        self,
        trains: Mapping[str, t3.TensorTrain],
        biases: Mapping[str, Tensor] | None = None,
        sites: Sites | None = None,
    ) -> None:
        self.sites = sites
        self._trains = checked_trains(trains)
        self.biases = checked_biases(biases or {}, self._trains, sites)

    def __getitem__(self, path: str) -> t3.TensorTrain:
        return self._trains[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trains)

    def __len__(self) -> int:
        return len(self._trains)

    def __add__(self: Self, other: Self) -> Self:
        """Return the sum; ranks add where both have a delta.

        Raises:
            ValueError: sizes or raw shapes differ at a path.
        """
        if not isinstance(other, DeltaVector):
            return NotImplemented
        pairs = self._pairs(other)
        trains = {**other, **self}
        for path, a, b in pairs:
            if a.raw_shape != b.raw_shape:
                raise ValueError(
                    f"Deltas of one linear must have the same raw shape to be added; got {a.raw_shape} and "
                    f"{b.raw_shape} at {path}: convert both with to_low_rank(), exactly, or one with "
                    'reshaped(raw_shape=...); combine does it with shape="low_rank" or shape="first".'
                )
            trains[path] = a + b
        biases = {**other.biases, **self.biases}
        for path in self.biases.keys() & other.biases.keys():
            biases[path] = self.biases[path] + other.biases[path]
        return type(self)(trains, biases, self.sites)

    def __sub__(self: Self, other: Self) -> Self:
        return self + -other if isinstance(other, DeltaVector) else NotImplemented

    def __neg__(self: Self) -> Self:
        return self * -1

    def __mul__(self: Self, scalar: float) -> Self:
        if not isinstance(scalar, Real):
            return NotImplemented
        if not math.isfinite(scalar):
            raise ValueError(f"A delta can be multiplied only by a finite number; got {scalar}: use a finite weight.")
        trains = {path: train * float(scalar) for path, train in self.items()}
        return type(self)(trains, {path: bias * float(scalar) for path, bias in self.biases.items()}, self.sites)

    __rmul__ = __mul__

    def __truediv__(self: Self, scalar: float) -> Self:
        return self * (1 / scalar) if isinstance(scalar, Real) else NotImplemented

    @staticmethod
    def mean(deltas: Sequence[Self], weights: Sequence[float] | None = None) -> Self:
        """Return the mean, or with ``weights`` sum_i w_i x_i / sum_i w_i.

        Raises:
            ValueError: there are no deltas, or not one weight for each, or their sum is zero.
        """
        weights = [1.0] * len(deltas) if weights is None else list(weights)
        total = math.fsum(weights)
        if total == 0:
            raise ValueError(
                f"A mean needs at least one adapter, and weights with a nonzero sum; got the weights {weights}: for a "
                "difference write x - y."
            )
        return linear_combination(deltas, [weight / total for weight in weights])

    def interpolate(self: Self, other: Self, t: float) -> Self:
        """Return (1 - t) x + t y, with any t: this one at t = 0, ``other`` at t = 1."""
        return linear_combination([self, other], [1 - t, t])

    def dot(self, other: "DeltaVector") -> float:
        """Return the inner product; raw shapes may differ."""
        products = [inner_product(a, b).item() for _, a, b in self._pairs(other)]
        shared = self.biases.keys() & other.biases.keys()
        return math.fsum([*products, *((self.biases[path] @ other.biases[path]).item() for path in shared)])

    def norm(self) -> float:
        """Return the norm, from orthogonal cores: accurate also if summands cancel."""
        return math.hypot(*(train.norm().item() for train in self.values()), *map(_norm, self.biases.values()))

    def cosine(self, other: "DeltaVector") -> float:
        """Return <x, y> / (||x|| ||y||), from -1 to 1.

        Raises:
            ValueError: one of the two is zero.
        """
        norms = self.norm(), other.norm()
        if 0 in norms:
            raise ValueError(
                f"A cosine is defined only for nonzero adapters; got norms {norms[0]} and {norms[1]}: use trained "
                "adapters."
            )
        return max(-1.0, min(1.0, self.dot(other) / norms[0] / norms[1]))

    def distance(self, other: "DeltaVector") -> float:
        """Return ||x - y||, accurate also if both are close; raw shapes may differ."""
        common = [distance(a, b).item() for _, a, b in self._pairs(other)]
        alone = [(self[path] if path in self else other[path]).norm().item() for path in self.keys() ^ other.keys()]
        zero = torch.zeros((), dtype=torch.float64)
        biases = [
            _norm(self.biases.get(path, zero) - other.biases.get(path, zero))
            for path in self.biases.keys() | other.biases.keys()
        ]
        return math.hypot(*common, *alone, *biases)

    def _pairs(self, other: "DeltaVector") -> list[tuple[str, t3.TensorTrain, t3.TensorTrain]]:
        """Return (path, T, T') where both have a delta, after checking sizes and sites."""
        if self.sites != other.sites:
            raise ValueError(
                f"Tensors for the whole model must have the same sites to be added or compared; got {self} and "
                f'{other}: use per_linear() of both; combine does it with shape="low_rank".'
            )
        pairs = [(path, self[path], other[path]) for path in self if path in other]
        for path, a, b in pairs:
            if a.shape != b.shape:
                raise ValueError(
                    f"Deltas of one linear must have the same size (out, in); got {a.shape} and {b.shape} at {path}: "
                    "use adapters of one base model."
                )
        return pairs


def linear_combination(deltas: Sequence[Self], weights: Iterable[float]) -> Self:
    """Return sum_i w_i x_i.

    Raises:
        ValueError: there are no deltas, or not one finite weight for each.
    """
    weights = list(weights)
    if not deltas or len(deltas) != len(weights):
        raise ValueError(
            f"A combination needs at least one adapter, and one weight for each; got {len(deltas)} adapters and "
            f"{len(weights)} weights: give one weight for each."
        )
    if others := [weight for weight in weights if not isinstance(weight, Real)]:
        raise ValueError(f"A weight must be a number; got {others[0]!r} in {weights}: give a list of numbers.")
    total = deltas[0] * weights[0]
    for summand, weight in zip(deltas[1:], weights[1:], strict=True):
        total = total + summand * weight
    return total


def _norm(vector: Tensor) -> float:
    return torch.linalg.vector_norm(vector).item()
