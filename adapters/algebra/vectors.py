"""The vector space of deltas: what a model's linears get, added, scaled and measured in the format of their trains.

    W -> W + T,  b -> b + c        T (out, in) a tensor train, scale folded in;  c (out,) or none

    vector          x = {path of the linear: T}, {path: c}
    x + y, a x      T + T' at ranks r + r', a T;  where a path has no T or no c, it is zero
    <x, y>          sum over paths of <T, T'> + <c, c'>, Frobenius;  ||x||^2 = <x, x>

Nothing is dense but one linear at a time where raw shapes differ.
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
    """An immutable mapping from the path of a linear to the tensor train of its delta; ``biases`` beside it.

    Args:
        trains: T (out, in) by path, of any floating dtype and device; held in float64 on the CPU, without gradients.
        biases: c (out,) by path, likewise; only of paths that have a T.
        sites: where the linears are in the one train that there is then; None where each has its own.

    Raises:
        ValueError: a number is not finite, or a bias has no T beside it or another size.
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
        """The sum; ranks add where both have a delta.

        Raises:
            ValueError: at one path sizes or raw shapes differ.
        """
        if not isinstance(other, DeltaVector):
            return NotImplemented
        pairs = self._pairs(other)
        trains = {**other, **self}
        for path, a, b in pairs:
            if a.raw_shape != b.raw_shape:
                raise ValueError(
                    f"A sum keeps the raw shape, so both summands have one; at {path} they have {a.raw_shape} and "
                    f"{b.raw_shape}: bring one to the other's by reshaped(raw_shape=...), with an error, or both to "
                    "factors by to_low_rank(), exactly."
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
            raise ValueError(f"A multiple is one by a finite number; got {scalar}: leave out what should not count.")
        trains = {path: train * float(scalar) for path, train in self.items()}
        return type(self)(trains, {path: bias * float(scalar) for path, bias in self.biases.items()}, self.sites)

    __rmul__ = __mul__

    def __truediv__(self: Self, scalar: float) -> Self:
        return self * (1 / scalar) if isinstance(scalar, Real) else NotImplemented

    @staticmethod
    def mean(deltas: Sequence[Self], weights: Sequence[float] | None = None) -> Self:
        """The mean of several; with ``weights``, sum_i w_i x_i / sum_i w_i.

        Raises:
            ValueError: there are no deltas, or weights of another number or with the sum zero.
        """
        weights = [1.0] * len(deltas) if weights is None else list(weights)
        total = math.fsum(weights)
        if total == 0:
            raise ValueError(
                f"The weights of a mean have a sum that is not zero; got {weights}: "
                "for a difference write x - y, and give at least one adapter."
            )
        return linear_combination(deltas, [weight / total for weight in weights])

    def interpolate(self: Self, other: Self, t: float) -> Self:
        """(1 - t) x + t y: this one at t = 0, ``other`` at t = 1; any t is allowed."""
        return linear_combination([self, other], [1 - t, t])

    def dot(self, other: "DeltaVector") -> float:
        """The inner product, also where raw shapes differ."""
        products = [inner_product(a, b).item() for _, a, b in self._pairs(other)]
        shared = self.biases.keys() & other.biases.keys()
        return math.fsum([*products, *((self.biases[path] @ other.biases[path]).item() for path in shared)])

    def norm(self) -> float:
        """The norm, from orthogonal cores: accurate also where summands cancel."""
        return math.hypot(*(train.norm().item() for train in self.values()), *map(_norm, self.biases.values()))

    def cosine(self, other: "DeltaVector") -> float:
        """<x, y> / (||x|| ||y||), from -1 to 1.

        Raises:
            ValueError: one of the two is zero.
        """
        norms = self.norm(), other.norm()
        if 0 in norms:
            raise ValueError(
                f"A cosine is one of two adapters that are not zero; got norms {norms[0]} and {norms[1]}: "
                "take adapters that have been trained."
            )
        return max(-1.0, min(1.0, self.dot(other) / norms[0] / norms[1]))

    def distance(self, other: "DeltaVector") -> float:
        """||x - y||, accurate also where both are close; also where raw shapes differ."""
        squares = [distance(a, b).item() for _, a, b in self._pairs(other)]
        alone = [(self[path] if path in self else other[path]).norm().item() for path in self.keys() ^ other.keys()]
        zero = torch.zeros((), dtype=torch.float64)
        biases = [
            _norm(self.biases.get(path, zero) - other.biases.get(path, zero))
            for path in self.biases.keys() | other.biases.keys()
        ]
        return math.hypot(*squares, *alone, *biases)

    def _pairs(self, other: "DeltaVector") -> list[tuple[str, t3.TensorTrain, t3.TensorTrain]]:
        """(path, T, T') where both have a delta; refuses those of unequal sizes, and other sites."""
        if self.sites != other.sites:
            raise ValueError(
                f"Tensors for a whole model are added and compared where they have the same sites; got {self} "
                f"and {other}: take per_linear() of both."
            )
        pairs = [(path, self[path], other[path]) for path in self if path in other]
        for path, a, b in pairs:
            if a.shape != b.shape:
                raise ValueError(
                    f"Deltas of one linear have one size (out, in); at {path} they have {a.shape} and {b.shape}: "
                    "take adapters of one base model."
                )
        return pairs


def linear_combination(deltas: Sequence[Self], weights: Iterable[float]) -> Self:
    """sum_i w_i x_i.

    Raises:
        ValueError: there are no deltas, or not one finite weight for each.
    """
    weights = list(weights)
    if not deltas or len(deltas) != len(weights):
        raise ValueError(
            f"A combination takes one weight for each adapter, and at least one; got {len(deltas)} adapters and "
            f"{len(weights)} weights: give as many."
        )
    total = deltas[0] * weights[0]
    for summand, weight in zip(deltas[1:], weights[1:], strict=True):
        total = total + summand * weight
    return total


def _norm(vector: Tensor) -> float:
    return torch.linalg.vector_norm(vector).item()
