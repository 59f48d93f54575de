"""What a tensor train and a tensor ring have in common: a chain of cores that stands for a matrix.

W[(i_1..i_d), (j_1..j_d)] = trace( G_1[:, i_1, j_1, :] ... G_d[:, i_d, j_d, :] )

    core G_k   (r_{k-1}, m_k, n_k, r_k)     r_d = r_0, and r_0 = 1 in a tensor train
    full()     (M, N) = (m_1 ... m_d, n_1 ... n_d), both multi-indices in C order, as `nn.Linear.weight` (out, in)
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .contraction import autocast_off, contract, dense, matmul
from .cores import Cores
from .shapes import RawShape


class TensorNetwork:
    """A matrix in factored form: immutable, differentiable in its cores, and a plain object (no nn.Module).

    Args:
        cores: tensors of shape (r_{k-1}, m_k, n_k, r_k), of one floating dtype, on one device.

    Raises:
        TypeError: a core is no floating tensor, or dtypes differ.
        ValueError: no core, a core that is not 4-dimensional or is empty, bonds that do not fit, devices that differ.
    """

    storage: type[Cores] = Cores
    """How a layer holds the cores of this format."""

    def __init__(self, cores: Iterable[Tensor]):
        self.cores = tuple(cores)
        self._check()

    @classmethod
    def free_bonds(cls, d: int) -> range:
        """The k for which a list of ranks names r_k."""
        raise NotImplementedError

    @classmethod
    def resolve_ranks(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
        """(r_0, ..., r_d) for a rank given as an int or a list."""
        raise NotImplementedError

    @classmethod
    def core_shapes(cls, raw_shape: RawShape, rank: int | Sequence[int]) -> list[tuple[int, int, int, int]]:
        """The shapes (r_{k-1}, m_k, n_k, r_k) of the cores of a network of this format."""
        ranks = cls.resolve_ranks(raw_shape, rank)
        return list(zip(ranks[:-1], *raw_shape, ranks[1:], strict=True))

    @classmethod
    def make_cores(
        cls,
        raw_shape: RawShape,
        rank: int | Sequence[int],
        disabled: Iterable[int] = (),
        basis_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Cores:
        """What a layer of this format holds for its cores; ValueError for what the format does not have."""
        return cls.storage(cls.core_shapes(raw_shape, rank), disabled, basis_size, device=device, dtype=dtype)

    def _check(self) -> None:
        name = type(self).__name__
        if not self.cores:
            raise ValueError(f"A {name} needs at least one core, but none was given; pass a list of cores.")
        for k, core in enumerate(self.cores):
            if not isinstance(core, Tensor) or not core.is_floating_point():
                given = core.dtype if isinstance(core, Tensor) else type(core).__name__
                raise TypeError(f"Each core must be a floating-point tensor, but core {k} is {given}; convert it.")
            if core.dim() != 4 or 0 in core.shape:
                raise ValueError(
                    "Each core must have the shape (r_{k-1}, m_k, n_k, r_k) with no zero in it, but core "
                    f"{k} has the shape {tuple(core.shape)}; reshape it (a vector's core has n_k = 1)."
                )
            if core.dtype != self.dtype:
                raise TypeError(
                    f"All cores must have one dtype, but core 0 is {self.dtype} and core {k} is {core.dtype}; "
                    "convert them to one."
                )
            if core.device != self.device:
                raise ValueError(
                    f"All cores must be on one device, but core 0 is on {self.device} and core {k} is on "
                    f"{core.device}; move them to one."
                )
        for k in range(1, len(self.cores)):
            left, right = self.cores[k - 1].shape[3], self.cores[k].shape[0]
            if left != right:
                raise ValueError(
                    f"Neighbouring cores must agree on the rank of their bond, but at bond {k} core {k - 1} ends with "
                    f"{left} and core {k} begins with {right}; make them equal."
                )
        first, last = self.cores[0].shape[0], self.cores[-1].shape[3]
        if first != last:
            raise ValueError(
                f"The chain must close (r_0 = r_d), but r_0 = {first} and r_d = {last}; "
                "give the first and the last core the same outer rank."
            )

    @property
    def ranks(self) -> tuple[int, ...]:
        """(r_0, r_1, ..., r_d), the two ends included."""
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
        """How many numbers the cores hold."""
        return sum(core.numel() for core in self.cores)

    def to(self, *args, **kwargs) -> "TensorNetwork":
        """The same network with its cores at another dtype or device; arguments as for `Tensor.to`."""
        return type(self)(core.to(*args, **kwargs) for core in self.cores)

    def full(self) -> Tensor:
        """The dense matrix (M, N), in the cores' dtype (autocast does not lower it)."""
        with autocast_off(self.device.type):
            return dense(self.cores)

    def added_to(self, weight: Tensor) -> Tensor:
        """weight (M, N) plus the dense matrix, both of one dtype, written in one pass; differentiable in the cores."""
        with autocast_off(self.device.type):
            return dense(self.cores, weight)

    def to_train(self) -> "TensorNetwork":
        """The same matrix, exactly, as a plain tensor train."""
        raise NotImplementedError

    @property
    def T(self) -> "TensorNetwork":  # noqa: N802 - the name that torch and numpy use
        """The transposed matrix."""
        return type(self)(core.transpose(1, 2) for core in self.cores)

    def __mul__(self, scalar: float | Tensor) -> "TensorNetwork":
        """The multiple by a number or a 0-dimensional tensor."""
        if not isinstance(scalar, int | float | Tensor) or (isinstance(scalar, Tensor) and scalar.dim() > 0):
            return NotImplemented
        return type(self)((self.cores[0] * scalar, *self.cores[1:]))

    __rmul__ = __mul__

    def __neg__(self) -> "TensorNetwork":
        return self * -1

    def __add__(self, other: "TensorNetwork") -> "TensorNetwork":
        """The sum, with ranks that add: the cores stand block-diagonally in the rank indices."""
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
        """Core k of a sum: (r, m, n, s) and (R, m, n, S) -> (r + R, m, n, s + S)."""
        upper = torch.cat([a, a.new_zeros(*a.shape[:3], b.shape[3])], dim=3)
        lower = torch.cat([b.new_zeros(*b.shape[:3], a.shape[3]), b], dim=3)
        return torch.cat([upper, lower], dim=0)

    def __matmul__(self, other: "TensorNetwork | Tensor") -> "TensorNetwork | Tensor":
        """The matrix product: with a network of the same format (ranks multiply), or a dense (N,) or (..., N, P)."""
        if isinstance(other, Tensor):
            return self._times_dense(other)
        if type(other) is not type(self):
            return NotImplemented
        if self.raw_shape[1] != other.raw_shape[0]:
            raise ValueError(
                "In a product the left columns must be factored as the right rows, but the factors are "
                f"{self.raw_shape[1]} and {other.raw_shape[0]}; build both with the same factors."
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
                f"A product with this network needs a dense (N,) or (..., N, P) with N = {N}, "
                f"but the shape is {tuple(dense.shape)}; transpose or reshape it."
            )
        return matmul(dense, self) if dense.dim() == 1 else matmul(dense.mT, self).mT

    def dot(self, other: "TensorNetwork") -> Tensor:
        """The Frobenius inner product sum_ij A_ij B_ij, a 0-dimensional tensor, without building either matrix."""
        if type(other) is not type(self):
            raise TypeError(
                f"dot needs another {type(self).__name__}, but {type(other).__name__} was given; convert it first."
            )
        self._check_same_raw_shape(other)
        c, C = self.ranks[0], other.ranks[0]
        transfer = torch.eye(c * C, dtype=self.dtype, device=self.device).reshape(c, C, c, C)
        for a, b in zip(self.cores, other.cores, strict=True):
            half = contract("cCrR,rmns->cCRmns", transfer, a)  # (c, C, r, R) x (r, m, n, s) -> (c, C, R, m, n, s)
            transfer = contract("cCRmns,RmnS->cCsS", half, b)  # (c, C, R, m, n, s) x (R, m, n, S) -> (c, C, s, S)
        return contract("cCcC->", transfer)

    def norm(self) -> Tensor:
        """The Frobenius norm, a 0-dimensional tensor."""
        return self.dot(self).clamp(min=0).sqrt()

    def _check_same_raw_shape(self, other: "TensorNetwork") -> None:
        if self.raw_shape != other.raw_shape:
            raise ValueError(
                "Networks can be added or multiplied entry by entry only if their raw shapes are equal, but they are "
                f"{self.raw_shape} and {other.raw_shape}; build both with the same factors."
            )

    def __repr__(self) -> str:
        name, dtype = type(self).__name__, self.dtype
        return f"{name}(shape={self.shape}, raw_shape={self.raw_shape}, ranks={self.ranks}, dtype={dtype})"
