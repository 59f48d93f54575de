"""The registry of formats. To add one, subclass `TensorNetwork` in a new file and add a line here."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from .canonical_polyadic import CanonicalPolyadic
from .cores import Cores
from .shapes import RawShape
from .tensor_basis import TensorBasis
from .tensor_network import TensorNetwork
from .tensor_ring import TensorRing
from .tensor_train import TensorTrain
from .tucker import Tucker

FORMATS: dict[str, type[TensorNetwork]] = {
    "tensor_train": TensorTrain,
    "tensor_ring": TensorRing,
    "tensor_basis": TensorBasis,
    "cp": CanonicalPolyadic,
    "tucker": Tucker,
}
"""The formats by name."""


class Format(Protocol):
    """A format with its parameters, such as `TensorBasisFormat`; `name` is one in `FORMATS`."""

    @property
    def name(self) -> str: ...

    def make_cores(
        self,
        raw_shape: RawShape,
        rank: int | Sequence[int],
        disabled: Iterable[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Cores:
        """Return the parameters of a layer, see `TensorNetwork.make_cores`."""


def get_format(name: str) -> type[TensorNetwork]:
    """Return the class of a format by its name; ValueError for an unknown name."""
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {name!r}: choose one of them.")
    return FORMATS[name]


def name_and_format(format: str | Format) -> tuple[str, Format | type[TensorNetwork]]:
    """Return the name of a format and what makes its cores: the class of that name, or the given object."""
    return (format, get_format(format)) if isinstance(format, str) else (format.name, format)
