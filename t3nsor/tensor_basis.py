"""The tensor-basis format: a tensor train whose cores are linear combinations of basis cores that layers can share.

G_k = sum_b c_k[b] B_k[b]

    coefficients c_k   (basis,)                        each layer's own
    basis        B_k   (basis, r_{k-1}, m_k, n_k, r_k) each layer's own, or shared: slot "basis_k"

A layer of d cores has d * basis parameters in addition to the basis. c_k is initialised uniformly on the unit sphere
and every B_k[b] like a plain core: Var[G_k] = |c_k|^2 Var[B_k] = Var[B_k] for any c_k, so the variance of full() is
exactly that of the train, and layers that share a basis differ. To start a core at zero, its coefficients are set to
zero, not its basis: they have the gradient <B_k[b], dL/dG_k> from the first step on, and the basis of other layers is
unchanged.

The idea of one dictionary for many layers, weighted in each, is from Savarese & Maire 2019 ("Learning Implicitly
Recurrent CNNs Through Parameter Sharing", arXiv:1902.09701), here applied to the cores of a train.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contraction import contract
from .cores import Cores, CoreShape, Slot
from .shapes import RawShape, positive_int
from .tensor_train import TensorTrain

BASIS_SIZE = 4
"""The default number of basis cores."""


class MixedCores(Cores):
    """Cores that are mixed from a basis when they are read; the entries of this list are None but for disabled ones.

    Args:
        core_shapes, disabled: as for `Cores`.
        basis_size: the number of basis cores for each core.
    """

    are_parameters = False

    def __init__(
        self,
        core_shapes: Sequence[CoreShape] = (),
        disabled: Iterable[int] = (),
        basis_size: int = BASIS_SIZE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(core_shapes, device=device, dtype=dtype)
        mixed = [k not in disabled for k in range(len(core_shapes))]
        for k in range(len(core_shapes)):
            if mixed[k]:
                self[k] = None
        options = {"device": device, "dtype": dtype}
        self.coefficients = nn.ParameterList(
            torch.empty(basis_size, **options) if is_mixed else None for is_mixed in mixed
        )
        self.basis = nn.ParameterList(
            torch.empty(basis_size, *shape, **options) if is_mixed else None
            for shape, is_mixed in zip(core_shapes, mixed, strict=True)
        )

    def live(self) -> list[Tensor]:
        return [core if coefficients is None else self._mix(k) for k, (core, coefficients) in self._pairs()]

    def slots(self, k: int) -> list[Slot]:
        return [] if self.coefficients[k] is None else [f"basis_{k}"]

    def slot(self, given: Slot) -> tuple[Slot, int]:
        known = {slot: k for k in range(len(self)) for slot in self.slots(k)}
        if given not in known:
            raise ValueError(f"slot must be one of {', '.join(known)}; got {given!r}: choose one of them.")
        return given, known[given]

    def parameters_of(self, k: int) -> list[nn.Parameter]:
        return [self[k]] if self.coefficients[k] is None else [self.coefficients[k], self.read(f"basis_{k}")]

    def reset(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        self._fill_basis(fill)
        for coefficients in self.coefficients:
            if coefficients is not None:
                coefficients.normal_()
                coefficients.div_(torch.linalg.vector_norm(coefficients))

    def set_mean_squares(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        self._fill_basis(fill)
        for coefficients in self.coefficients:
            if coefficients is not None:
                coefficients.fill_(1 / len(coefficients))

    def zero_parameter(self, k: int) -> nn.Parameter:
        return self.coefficients[k]

    def _fill_basis(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        size = max(len(coefficients) for coefficients in self.coefficients if coefficients is not None)
        for b in range(size):
            fill([core if c is None else self.read(f"basis_{k}")[b] for k, (core, c) in self._pairs()])

    def _pairs(self) -> Iterable[tuple[int, tuple[nn.Parameter | None, nn.Parameter | None]]]:
        return enumerate(zip(self, self.coefficients, strict=True))

    def _mix(self, k: int) -> Tensor:
        """(basis,) x (basis, r, m, n, s) -> (r, m, n, s)."""
        return contract("b,brmns->rmns", self.coefficients[k], self.read(f"basis_{k}"))

    def _entry(self, slot: Slot) -> tuple[nn.ParameterList, int]:
        return self.basis, self.slot(slot)[1]


@dataclass(frozen=True)
class TensorBasisFormat:
    """The format "tensor_basis" with its parameter, for the `format` of a layer.

    Args:
        basis_size: the number of basis cores that each core is mixed from.
    """

    basis_size: int = BASIS_SIZE
    name = "tensor_basis"

    def __post_init__(self) -> None:
        positive_int(self.basis_size, "basis_size")

    def make_cores(
        self,
        raw_shape: RawShape,
        rank: int | Sequence[int],
        disabled: Iterable[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> MixedCores:
        """Return the parameters of a layer of this format."""
        core_shapes = TensorBasis.core_shapes(raw_shape, rank)
        return MixedCores(core_shapes, disabled, self.basis_size, device=device, dtype=dtype)


class TensorBasis(TensorTrain):
    """A tensor train whose cores are linear combinations of basis cores that layers can share.

    A layer's parameters are `MixedCores`; `TensorBasisFormat` has another basis size.
    """

    storage = MixedCores
