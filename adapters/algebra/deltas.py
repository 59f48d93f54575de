"""Adapters as vectors: the deltas of a model's linears, added, scaled, compared and rounded in their format.

    W -> W + T,  b -> b + c        T (out, in) a tensor train, scale folded in;  c (out,) or none

    deltas          x = {path of the linear: T}, {path: c}
    x + y, a x      T + T' at ranks r + r', a T;  where a path has no T or no c, it is zero
    <x, y>          sum over paths of <T, T'> + <c, c'>, Frobenius;  ||x||^2 = <x, x>

Nothing is dense but one linear at a time where raw shapes differ. Cores are float64 here and float32 in a folder. Sums
and differences of such vectors are the task arithmetic of Ilharco et al. 2022 (arXiv:2212.04089). An adapter with site
modes is one train for the whole model, see ``adapters.algebra.sites``; ``per_linear()`` gives those of its linears.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.algebra.folders import read_deltas, write_deltas
from adapters.algebra.live import live_deltas
from adapters.algebra.low_rank import distance, factors, from_factors, inner_product
from adapters.algebra.peft_folders import write_lora
from adapters.algebra.report import Approximation, ApproximationReport
from adapters.algebra.sites import Sites
from adapters.tensor_train_linear import TensorTrainLoRAConfig

Directory = str | os.PathLike


class Deltas(Mapping[str, t3.TensorTrain]):
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
        self._trains = {path: _in_float64(path, trains[path]) for path in sorted(trains)}
        given = biases or {}
        for path in given:
            size = self._out_features(path)
            if given[path].shape != (size,):
                raise ValueError(
                    "A bias has the out size of the delta beside it; given was one of shape "
                    f"{tuple(given[path].shape)} at {path}, where that is {size}: give a delta of this size, zero if "
                    "there is none."
                )
        vectors = {path: given[path].detach().to("cpu", torch.float64) for path in sorted(given)}
        self.biases: Mapping[str, Tensor] = MappingProxyType(vectors)
        for path, bias in vectors.items():
            _check_finite(path, bias)

    @classmethod
    def read(cls, directory: Directory, task: str | None = None) -> "Deltas":
        """The deltas of a saved adapter, without its base model.

        Args:
            directory: written by ``adapters.save`` (of the kind tt_lora), or by PEFT's ``save_pretrained`` (of our
                tuner, or LoRA).
            task: of an adapter with modules by task, the one whose modules act; None for those of all tasks.

        Raises:
            CheckpointError: the folder cannot be read, or holds what is no delta of linears.
        """
        return cls(*read_deltas(directory, task))

    @classmethod
    def of(cls, model: nn.Module) -> "Deltas":
        """The deltas that act in an adapted model now: by ``adapters.attach``, or by our tuner in PEFT.

        Raises:
            ConfigurationError: the model has none, or other adapters than deltas of linears.
        """
        return cls(*live_deltas(model))

    def write(self, directory: Directory, like: Directory) -> None:
        """Write an adapter that loads as the one in ``like`` does, each file whole or not at all.

        Args:
            directory: made if missing.
            like: a folder that ``read`` takes; its kind (native, our tuner, LoRA) and what it says of the base model
                hold for the new one too.

        Raises:
            CheckpointError: ``like`` cannot be read, or its base has no linears of these paths and sizes.
        """
        write_deltas(directory, like, self._trains, self.biases, self.sites)

    def write_lora(self, directory: Directory, like: Directory | None = None) -> None:
        """Write a folder of PEFT's LoRA: exact, at the matrix rank of each delta, with alpha = r.

        Args:
            directory: made if missing.
            like: a folder of PEFT whose base model and task type hold for the new one too.
        """
        self._refuse_sites("A folder of LoRA has factors for each linear")
        write_lora(Path(directory), None if like is None else Path(like), self._trains, self.biases)

    def __getitem__(self, path: str) -> t3.TensorTrain:
        return self._trains[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trains)

    def __len__(self) -> int:
        return len(self._trains)

    def __add__(self, other: "Deltas") -> "Deltas":
        """The sum; ranks add where both have a delta.

        Raises:
            ValueError: at one path sizes or raw shapes differ.
        """
        if not isinstance(other, Deltas):
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
        return Deltas(trains, biases, self.sites)

    def __sub__(self, other: "Deltas") -> "Deltas":
        return self + -other if isinstance(other, Deltas) else NotImplemented

    def __neg__(self) -> "Deltas":
        return self * -1

    def __mul__(self, scalar: float) -> "Deltas":
        if not isinstance(scalar, Real):
            return NotImplemented
        if not math.isfinite(scalar):
            raise ValueError(
                f"A multiple is one by a finite number; given was {scalar}: leave out what should not count."
            )
        trains = {path: train * float(scalar) for path, train in self.items()}
        return Deltas(trains, {path: bias * float(scalar) for path, bias in self.biases.items()}, self.sites)

    __rmul__ = __mul__

    def __truediv__(self, scalar: float) -> "Deltas":
        return self * (1 / scalar) if isinstance(scalar, Real) else NotImplemented

    @staticmethod
    def mean(deltas: Sequence["Deltas"], weights: Sequence[float] | None = None) -> "Deltas":
        """The mean; with ``weights``, sum_i w_i x_i / sum_i w_i.

        Raises:
            ValueError: there are no deltas, or weights of another number or with the sum zero.
        """
        weights = [1.0] * len(deltas) if weights is None else list(weights)
        total = math.fsum(weights)
        if total == 0:
            raise ValueError(
                f"The weights of a mean have a sum that is not zero; given were {weights}: "
                "for a difference write x - y, and give at least one adapter."
            )
        return linear_combination(deltas, [weight / total for weight in weights])

    def interpolate(self, other: "Deltas", t: float) -> "Deltas":
        """(1 - t) x + t y: this one at t = 0, ``other`` at t = 1; any t is allowed."""
        return linear_combination([self, other], [1 - t, t])

    def dot(self, other: "Deltas") -> float:
        """The inner product, also where raw shapes differ."""
        products = [inner_product(a, b).item() for _, a, b in self._pairs(other)]
        shared = self.biases.keys() & other.biases.keys()
        return math.fsum([*products, *((self.biases[path] @ other.biases[path]).item() for path in shared)])

    def norm(self) -> float:
        """The norm, from orthogonal cores: accurate also where summands cancel."""
        return math.hypot(*(train.norm().item() for train in self.values()), *map(_norm, self.biases.values()))

    def cosine(self, other: "Deltas") -> float:
        """<x, y> / (||x|| ||y||), from -1 to 1.

        Raises:
            ValueError: one of the two is zero.
        """
        norms = self.norm(), other.norm()
        if 0 in norms:
            raise ValueError(
                f"A cosine is one of two adapters that are not zero; given were norms {norms[0]} and {norms[1]}: "
                "take adapters that have been trained."
            )
        return max(-1.0, min(1.0, self.dot(other) / norms[0] / norms[1]))

    def distance(self, other: "Deltas") -> float:
        """||x - y||, accurate also where both are close; also where raw shapes differ."""
        squares = [distance(a, b).item() for _, a, b in self._pairs(other)]
        alone = [(self.get(path) or other[path]).norm().item() for path in self.keys() ^ other.keys()]
        zero = torch.zeros((), dtype=torch.float64)
        biases = [
            _norm(self.biases.get(path, zero) - other.biases.get(path, zero))
            for path in self.biases.keys() | other.biases.keys()
        ]
        return math.hypot(*squares, *alone, *biases)

    def round(
        self, max_rank: int | Sequence[int] | None = None, rel_tol: float | None = None
    ) -> tuple["Deltas", ApproximationReport]:
        """Trains of smaller ranks near these, by TT-rounding, and what that cost; biases stay as they are.

        Args:
            max_rank, rel_tol: as ``TensorTrain.round`` takes them, for each linear. Without a cap each error is at most
                rel_tol times the norm of its own delta, and so is that of all.
        """
        return self._approximated({path: train.round(max_rank, rel_tol) for path, train in self.items()})

    def to_low_rank(self) -> "Deltas":
        """The same deltas as products of two factors, raw shape ((1, out), (in, 1)): exact, at their matrix ranks."""
        self._refuse_sites("Factors (out, r) and (r, in) are those of one linear")
        return Deltas({path: from_factors(*factors(train)) for path, train in self.items()}, self.biases)

    def per_linear(self) -> "Deltas":
        """Of an adapter with site modes the deltas of its linears, a train for each; any other one itself."""
        if self.sites is None:
            return self
        (train,) = self.values()
        return Deltas({path: self.sites.train_at(train, path) for path in self.sites.indices}, self.biases)

    def reshaped(
        self,
        raw_shape: Sequence[Sequence[int]] | None = None,
        d: int | None = None,
        shape_mode: str | None = None,
        max_rank: int | Sequence[int] | None = None,
        rel_tol: float | None = None,
    ) -> tuple["Deltas", ApproximationReport]:
        """Trains of other factors near these, by the TT-SVD of one dense delta after the other, and what that cost.

        Args:
            raw_shape, d, shape_mode: as the fields of tt_lora: raw_shape is taken swapped by linears of swapped sizes.
            max_rank, rel_tol: as ``t3nsor.tt_svd`` takes them, for each linear.

        Raises:
            ConfigurationError: the shape does not fit a linear.
        """
        self._refuse_sites("A raw shape is that of one linear")
        caps = max_rank if isinstance(max_rank, int) or max_rank is None else tuple(max_rank)
        sides = None if raw_shape is None else tuple(map(tuple, raw_shape))
        config = TensorTrainLoRAConfig(
            raw_shape=sides, d=d, shape_mode=shape_mode, rank=caps if isinstance(caps, int) else 8
        )
        trains = {}
        for path, train in self.items():
            out_features, in_features = train.shape
            with torch.device("meta"):
                wanted = config.build(in_features, out_features).linear.raw_shape
            trains[path] = t3.tt_svd(train.full(), wanted, caps, rel_tol)
        return self._approximated(trains)

    def __repr__(self) -> str:
        ranks = max((max(train.ranks) for train in self.values()), default=0)
        if self.sites is not None:
            return f"Deltas(one tensor for {len(self.sites.indices)} linears, ranks up to {ranks})"
        return f"Deltas({len(self)} linears, {len(self.biases)} biases, ranks up to {ranks})"

    def _approximated(self, trains: dict[str, t3.TensorTrain]) -> tuple["Deltas", ApproximationReport]:
        report = ApproximationReport({path: Approximation.of(self[path], trains[path]) for path in self})
        return Deltas(trains, self.biases, self.sites), report

    def _out_features(self, path: str) -> int | None:
        if self.sites is None:
            return self[path].shape[0] if path in self else None
        rows = sum(train.shape[0] for train in self.values())
        return rows // math.prod(self.sites.counts) if path in self.sites.indices else None

    def _refuse_sites(self, rule: str) -> None:
        if self.sites is not None:
            raise ValueError(f"{rule}; given was one tensor for the whole model: take per_linear() first.")

    def _pairs(self, other: "Deltas") -> list[tuple[str, t3.TensorTrain, t3.TensorTrain]]:
        """(path, T, T') where both have a delta; refuses those of unequal sizes, and other sites."""
        if self.sites != other.sites:
            raise ValueError(
                f"Tensors for a whole model are added and compared where they have the same sites; given were {self} "
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


def linear_combination(deltas: Sequence[Deltas], weights: Iterable[float]) -> Deltas:
    """sum_i w_i x_i.

    Raises:
        ValueError: there are no deltas, or not one finite weight for each.
    """
    weights = list(weights)
    if not deltas or len(deltas) != len(weights):
        raise ValueError(
            f"A combination takes one weight for each adapter, and at least one; given were {len(deltas)} adapters and "
            f"{len(weights)} weights: give as many."
        )
    total = deltas[0] * weights[0]
    for summand, weight in zip(deltas[1:], weights[1:], strict=True):
        total = total + summand * weight
    return total


def _in_float64(path: str, train: t3.TensorTrain) -> t3.TensorTrain:
    cores = [core.detach().to("cpu", torch.float64) for core in train.cores]
    for core in cores:
        _check_finite(path, core)
    return t3.TensorTrain(cores)


def _check_finite(path: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise ValueError(
            f"A delta holds finite numbers; at {path} one is infinite or NaN: training diverged, take an earlier "
            "checkpoint."
        )


def _norm(vector: Tensor) -> float:
    return torch.linalg.vector_norm(vector).item()
