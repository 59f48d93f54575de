"""The base of tensor trains and tensor rings: a matrix given by a chain of cores.

W[(i_1..i_d), (j_1..j_d)] = trace( G_1[:, i_1, j_1, :] ... G_d[:, i_d, j_d, :] )

    core G_k   (r_{k-1}, m_k, n_k, r_k)     r_d = r_0, and r_0 = 1 in a tensor train
    full()     (M, N) = (m_1 ... m_d, n_1 ... n_d), both multi-indices in C order, as `nn.Linear.weight` (out, in)
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .contraction import autocast_off, contract, dense, matmul
from .cores import Cores, CoreShape
from .shapes import RawShape


class TensorNetwork:
    """A matrix in factored form: immutable, differentiable in its cores, a plain object rather than an nn.Module.

    Args:
        cores: tensors of shape (r_{k-1}, m_k, n_k, r_k), of one floating dtype, on one device.

    Raises:
        TypeError: a core is not a floating-point tensor, or dtypes differ.
        ValueError: there is no core, a core is not 4-dimensional or is empty, bonds do not fit, or devices differ.
    """

    storage: type[Cores] = Cores
    """The parameters of a layer of this format."""

    def __init__(self, cores: Iterable[Tensor]):
        self.cores = tuple(cores)
        self._check()

    @classmethod
    def unchecked(cls, cores: Iterable[Tensor]) -> "TensorNetwork":
        """Return the network of cores that are known to be valid; forward passes need no checks."""
        network = cls.__new__(cls)
        network.cores = tuple(cores)
        return network

    @classmethod
    def free_bonds(cls, d: int) -> range:
        """Return the k for which a list of ranks gives r_k."""
        raise NotImplementedError

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """Return (r_0, ..., r_d) for a rank given as an int or a list."""
        raise NotImplementedError

    @classmethod
    def core_shapes(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> list[CoreShape]:
        """Return the shapes (r_{k-1}, m_k, n_k, r_k) of the cores of a network of this format."""
        ranks = cls.resolve_ranks(raw_shape, rank)
        return list(zip(ranks[:-1], *raw_shape, ranks[1:], strict=True))

    @classmethod
    def make_cores(
        cls,
        raw_shape: RawShape,
        rank: int | Sequence[int],
        disabled: Iterable[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Cores:
        """Return the parameters of a layer of this format; ValueError for an unsupported option."""
        return cls.storage(cls.core_shapes(raw_shape, rank), disabled, device=device, dtype=dtype)

    def _check(self) -> None:
        name = type(self).__name__
        if not self.cores:
            raise ValueError(f"A {name} needs at least one core; got none: pass a list of cores.")
        for k, core in enumerate(self.cores):
            if not isinstance(core, Tensor) or not core.is_floating_point():
                given = core.dtype if isinstance(core, Tensor) else type(core).__name__
                raise TypeError(f"Each core must be a floating-point tensor; got {given} as core {k}: convert it.")
            if core.dim() != 4 or 0 in core.shape:
                raise ValueError(
                    "Each core must have the shape (r_{k-1}, m_k, n_k, r_k) with no zero in it; got "
                    f"{tuple(core.shape)} as core {k}: reshape it (a vector's core has n_k = 1)."
                )
            if core.dtype != self.dtype:
                raise TypeError(
                    f"All cores must have one dtype; got {self.dtype} for core 0 and {core.dtype} for core {k}: "
                    "convert them to one."
                )
            if core.device != self.device:
                raise ValueError(
                    f"All cores must be on one device; got {self.device} for core 0 and {core.device} for core {k}: "
                    "move them to one."
                )
        for k in range(1, len(self.cores)):
            left, right = self.cores[k - 1].shape[3], self.cores[k].shape[0]
            if left != right:
                raise ValueError(
                    f"Neighbouring cores must agree on the rank of their bond; got {left} at the end of core {k - 1} "
                    f"and {right} at the beginning of core {k}: make them equal."
                )
        first, last = self.cores[0].shape[0], self.cores[-1].shape[3]
        if first != last:
            raise ValueError(
                f"The chain must close (r_0 = r_d); got r_0 = {first} and r_d = {last}: "
                "give the first and the last core the same outer rank."
            )

    @property
    def ranks(self) -> tuple[int, ...]:
        """(r_0, r_1, ..., r_d), including both ends."""
        return (self.cores[0].shape[0], *(core.shape[3] for core in self.cores))

    @property
    def raw_shape(self) -> RawShape:
        """((m_1, ..., m_d), (n_1, ..., n_d))."""
        return tuple(core.shape[1] for core in self.cores), tuple(core.shape[2] for core in self.cores)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (M, N) of the matrix."""
        rows, columns = self.raw_shape
        return math.prod(rows), math.prod(columns)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every core."""
        return self.cores[0].dtype

    @property
    def device(self) -> torch.device:
        """The device of every core."""
        return self.cores[0].device

    @property
    def param_count(self) -> int:
        """The number of entries of all cores."""
        return sum(core.numel() for core in self.cores)

    def to(self, *args, **kwargs) -> "TensorNetwork":
        """Return the network with its cores in another dtype or on another device; arguments as for `Tensor.to`."""
        return type(self)(core.to(*args, **kwargs) for core in self.cores)

    def full(self) -> Tensor:
        """Return the dense matrix (M, N), in the cores' dtype also under autocast."""
        with autocast_off(self.device.type):
            return dense(self.cores)

    def added_to(self, weight: Tensor) -> Tensor:
        """Return weight (M, N) plus the dense matrix, both of one dtype, in one pass; differentiable in the cores."""
        with autocast_off(self.device.type):
            return dense(self.cores, weight)

    def to_train(self) -> "TensorNetwork":
        """Return exactly the same matrix as a plain tensor train."""
        raise NotImplementedError

    @property
    def T(self) -> "TensorNetwork":  # noqa: N802 - the name that torch and numpy use
        """The transposed matrix."""
        return self.unchecked(core.transpose(1, 2) for core in self.cores)

    def __mul__(self, scalar: float | Tensor) -> "TensorNetwork":
        """Return the multiple by a real number or a 0-dimensional real tensor."""
        is_real = not scalar.dim() and not scalar.is_complex() if isinstance(scalar, Tensor) else True
        if not isinstance(scalar, int | float | Tensor) or not is_real:
            return NotImplemented
        return self.unchecked((self.cores[0] * scalar, *self.cores[1:]))

    __rmul__ = __mul__

    def __neg__(self) -> "TensorNetwork":
        return self * -1

    def __add__(self, other: "TensorNetwork") -> "TensorNetwork":
        """Return the sum; its cores are block-diagonal in the rank indices, so that ranks add."""
        if type(other) is not type(self):
            return NotImplemented
        self._check_same_raw_shape(other)
        pairs = zip(self.cores, other.cores, strict=True)
        return type(self)(self._block_diagonal(k, a, b) for k, (a, b) in enumerate(pairs))

    def __sub__(self, other: "TensorNetwork") -> "TensorNetwork":
        if type(other) is not type(self):
            return NotImplemented
        return self + -other

    def _block_diagonal(self, k: int, a: Tensor, b: Tensor) -> Tensor:
        """Return core k of a sum: (r, m, n, s) and (R, m, n, S) -> (r + R, m, n, s + S)."""
        upper = torch.cat([a, a.new_zeros(*a.shape[:3], b.shape[3])], dim=3)
        lower = torch.cat([b.new_zeros(*b.shape[:3], a.shape[3]), b], dim=3)
        return torch.cat([upper, lower], dim=0)

    def __matmul__(self, other: "TensorNetwork | Tensor") -> "TensorNetwork | Tensor":
        """Return the product with a network of the same format (ranks multiply) or a dense (N,) or (..., N, P)."""
        if isinstance(other, Tensor):
            return self._times_dense(other)
        if type(other) is not type(self):
            return NotImplemented
        if self.raw_shape[1] != other.raw_shape[0]:
            raise ValueError(
                "In a product the left columns must be factored as the right rows; got the factors "
                f"{self.raw_shape[1]} and {other.raw_shape[0]}: build both with the same factors."
            )
        products = []
        for a, b in zip(self.cores, other.cores, strict=True):
            core = contract("rmks,RknS->rRmnsS", a, b)  # (r, m, k, s) x (R, k, n, S) -> (r, R, m, n, s, S)
            products.append(core.flatten(4, 5).flatten(0, 1))  # (r R, m, n, s S)
        return type(self)(products)

    def _times_dense(self, dense: Tensor) -> Tensor:
        """W (M, N) x (N,) -> (M,), or (M, N) x (..., N, P) -> (..., M, P)."""
        N = self.shape[1]
        if dense.dim() == 0 or dense.shape[-2:][0] != N:
            raise ValueError(
                f"A product with this network needs a dense (N,) or (..., N, P) with N = {N}; "
                f"got the shape {tuple(dense.shape)}: transpose or reshape it."
            )
        return matmul(dense, self) if dense.dim() == 1 else matmul(dense.mT, self).mT

    def dot(self, other: "TensorNetwork") -> Tensor:
        """Return the Frobenius inner product sum_ij A_ij B_ij, a 0-dimensional tensor, without dense matrices."""
        if type(other) is not type(self):
            raise TypeError(f"dot needs another {type(self).__name__}; got a {type(other).__name__}: convert it first.")
        self._check_same_raw_shape(other)
        c, C = self.ranks[0], other.ranks[0]
        transfer = torch.eye(c * C, dtype=self.dtype, device=self.device).reshape(c, C, c, C)
        for a, b in zip(self.cores, other.cores, strict=True):
            half = contract("cCrR,rmns->cCRmns", transfer, a)  # (c, C, r, R) x (r, m, n, s) -> (c, C, R, m, n, s)
            transfer = contract("cCRmns,RmnS->cCsS", half, b)  # (c, C, R, m, n, s) x (R, m, n, S) -> (c, C, s, S)
        return contract("cCcC->", transfer)

    def norm(self) -> Tensor:
        """Return the Frobenius norm, a 0-dimensional tensor."""
        return self.dot(self).clamp(min=0).sqrt()

    def _check_same_raw_shape(self, other: "TensorNetwork") -> None:
        if self.raw_shape != other.raw_shape:
            raise ValueError(
                "Networks can be added or multiplied entry by entry only if their raw shapes are equal; got "
                f"{self.raw_shape} and {other.raw_shape}: build both with the same factors."
            )

    def __repr__(self) -> str:
        name, dtype = type(self).__name__, self.dtype
        return f"{name}(shape={self.shape}, raw_shape={self.raw_shape}, ranks={self.ranks}, dtype={dtype})"
