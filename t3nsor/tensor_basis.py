"""The tensor-basis format: a tensor train whose cores are mixes of basis cores, which many layers can have in common.

G_k = sum_b c_k[b] B_k[b]

    coefficients c_k   (basis,)                        each layer's own
    basis        B_k   (basis, r_{k-1}, m_k, n_k, r_k) each layer's own, or shared: slot "basis_k"

A layer of d cores then costs d basis numbers beside the basis. It starts with c_k uniform on the unit sphere and every
B_k[b] as a plain core starts: Var[G_k] = |c_k|^2 Var[B_k] = Var[B_k] for any c_k, so the variance of full() is that of
the train, exactly, and layers with a basis in common differ. Where a core starts at zero its coefficients do, not its
basis: they have a gradient, <B_k[b], dL/dG_k>, from the first step on, and another layer's basis is left alone.

The idea of one dictionary for many layers, weighted in each, is that of Savarese & Maire 2019 ("Learning Implicitly
Recurrent CNNs Through Parameter Sharing", arXiv:1902.09701), here for the cores of a train.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from .contraction import contract
from .cores import Cores, Slot
from .shapes import positive_int
from .tensor_train import TensorTrain

BASIS_SIZE = 4
"""The number of basis cores where nothing is said."""


class MixedCores(Cores):
    """Cores that are mixed from a basis when they are read; the place of each here is None, but for a disabled one's.

    Args:
        shapes, disabled: as for `Cores`.
        basis_size: how many basis cores there are for each core; `BASIS_SIZE` where it is None.
    """

    are_parameters = False

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]] = (),
        disabled: Iterable[int] = (),
        basis_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(shapes, device=device, dtype=dtype)
        size = positive_int(BASIS_SIZE if basis_size is None else basis_size, "basis_size")
        mixed = [k not in disabled for k in range(len(shapes))]
        for k in range(len(shapes)):
            if mixed[k]:
                self[k] = None
        options = {"device": device, "dtype": dtype}
        self.coefficients = nn.ParameterList(torch.empty(size, **options) if is_mixed else None for is_mixed in mixed)
        self.basis = nn.ParameterList(
            torch.empty(size, *shape, **options) if is_mixed else None
            for shape, is_mixed in zip(shapes, mixed, strict=True)
        )

    def live(self) -> list[Tensor]:
        return [core if coefficients is None else self._mix(k) for k, (core, coefficients) in self._entries()]

    def slots(self, k: int) -> list[Slot]:
        return [] if self.coefficients[k] is None else [f"basis_{k}"]

    def slot(self, given: Slot) -> tuple[Slot, int]:
        known = {slot: k for k in range(len(self)) for slot in self.slots(k)}
        if given not in known:
            raise ValueError(f"slot must be one of {', '.join(known)}, but {given!r} was given; choose one of them.")
        return given, known[given]

    def numbers(self, k: int) -> list[nn.Parameter]:
        return [self[k]] if self.coefficients[k] is None else [self.coefficients[k], self.read(f"basis_{k}")]

    def reset(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        size = max(len(coefficients) for coefficients in self.coefficients if coefficients is not None)
        for b in range(size):
            fill([core if c is None else self.read(f"basis_{k}")[b] for k, (core, c) in self._entries()])
        for coefficients in self.coefficients:
            if coefficients is not None:
                coefficients.normal_()
                coefficients.div_(torch.linalg.vector_norm(coefficients))

    def zero(self, k: int) -> None:
        self.coefficients[k].zero_()

    def _entries(self) -> Iterable[tuple[int, tuple[nn.Parameter | None, nn.Parameter | None]]]:
        return enumerate(zip(self, self.coefficients, strict=True))

    def _mix(self, k: int) -> Tensor:
        """(basis,) x (basis, r, m, n, s) -> (r, m, n, s)."""
        return contract("b,brmns->rmns", self.coefficients[k], self.read(f"basis_{k}"))

    def _place(self, slot: Slot) -> tuple[nn.ParameterList, int]:
        return self.basis, self.slot(slot)[1]


class TensorBasis(TensorTrain):
    """A tensor train as a network; what is its own is how a layer holds the cores."""

    storage = MixedCores
