"""The registry of formats: a new one is a subclass of `TensorNetwork` in a file of its own and one line here."""

from .canonical_polyadic import CanonicalPolyadic
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


def get_format(name: str) -> type[TensorNetwork]:
    """The class of a format by its name; ValueError for an unknown name."""
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, but {name!r} was given; choose one of them.")
    return FORMATS[name]
