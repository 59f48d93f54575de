"""The base of the layers: cores as parameters, and the tensor network that they represent.

raw_shape  ((m_1, ..., m_d), (n_1, ..., n_d))       ranks  (r_0, r_1, ..., r_d); r_0 = r_d = 1 except in a ring
cores      nn.ParameterList of (r_{k-1}, m_k, n_k, r_k), the only place where values are stored; see `Cores`, also for
           sharing, and its subclasses for formats with other parameters

A frozen core keeps its initial value; a disabled one is held at the identity-like element that its layer documents.
Both have requires_grad False.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .cores import Cores, CoreShape, Slot
from .formats import Format, get_format, name_and_format
from .initializers import CONSTANTS, STRUCTURED, initialize_
from .shapes import RawShape, check_factors, check_product, factorize, index_below, positive_int
from .tensor_network import TensorNetwork


class TTModule(nn.Module):
    """A module whose weight is a tensor network; subclasses set the values in `reset_parameters()`, in place.

    Args:
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)), already checked.
        tt_rank: as accepted by the format's `resolve_ranks`.
        frozen_cores, disabled_cores: indices of cores, negative ones from the end; see the head of this file.
        format: a name in `FORMATS`, or a format with its parameters, such as `TensorBasisFormat(basis_size=8)`.
    """

    def __init__(
        self,
        raw_shape: RawShape,
        tt_rank: int | Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        frozen_cores: Iterable[int] = (),
        disabled_cores: Iterable[int] = (),
        format: str | Format = "tensor_train",
    ):
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point dtype; got {dtype}: use e.g. torch.float32.")
        super().__init__()
        self.raw_shape = raw_shape
        self.frozen_cores = self._core_indices(frozen_cores, "frozen_cores")
        self.disabled_cores = self._core_indices(disabled_cores, "disabled_cores")
        if both := sorted(set(self.frozen_cores) & set(self.disabled_cores)):
            raise ValueError(
                f"A core is either frozen or disabled; got {both} in both lists: disabled cores are never trained, so "
                "leave them out of frozen_cores."
            )
        self.format, format = name_and_format(format)
        self.cores = format.make_cores(raw_shape, tt_rank, self.disabled_cores, device=device, dtype=dtype)
        self.freeze_cores()

    @property
    def core_shapes(self) -> list[CoreShape]:
        """The shape (r_{k-1}, m_k, n_k, r_k) of each core."""
        return self.cores.core_shapes

    @property
    def ranks(self) -> tuple[int, ...]:
        """(r_0, r_1, ..., r_d)."""
        return (self.core_shapes[0][0], *(shape[3] for shape in self.core_shapes))

    def live_cores(self) -> list[Tensor]:
        """Return the current cores (r_{k-1}, m_k, n_k, r_k), including shared and mixed ones."""
        return self.cores.live()

    @torch.no_grad()
    def set_cores(self, cores: Sequence[Tensor]) -> None:
        """Copy cores, possibly of other ranks, into the existing Parameters; gradients are dropped.

        Args:
            cores: (r_{k-1}, m_k, n_k, r_k) with the factors of `raw_shape` and the present r_0 and r_d.

        Raises:
            ValueError: the cores do not fit each other or the layer, or the layer mixes, shares or disables cores.
        """
        network = get_format(self.format)(cores)
        shapes = [tuple(core.shape) for core in network.cores]
        fixed = [k for k in range(len(self.cores)) if k in self.disabled_cores or self.cores.is_shared(k)]
        if type(self.cores) is not Cores or fixed:
            raise ValueError(
                "set_cores needs a layer in which each core is a trainable Parameter of its own; got "
                f"format={self.format!r} and disabled or shared cores {fixed}: build a new layer."
            )
        if network.raw_shape != self.raw_shape or network.ranks[0] != self.ranks[0]:
            raise ValueError(
                f"New cores must have the factors {self.raw_shape} and the outer rank {self.ranks[0]} of the layer; "
                f"got the shapes {shapes}: change interior ranks only."
            )
        for parameter, core in zip(self.cores, cores, strict=True):
            _replace(parameter, core)
        self.cores.core_shapes = shapes

    def freeze_cores(self) -> None:
        """Set requires_grad of the frozen and disabled cores to False, as at construction."""
        for k in (*self.frozen_cores, *self.disabled_cores):
            for parameter in self.cores.parameters_of(k):
                parameter.requires_grad_(False)

    def network(self) -> TensorNetwork:
        """Return the weight as a network over the live parameters, differentiable in them."""
        return get_format(self.format).unchecked(self.live_cores())

    def full(self) -> Tensor:
        """Return the dense weight, differentiable in the cores."""
        return self.network().full()

    def shareable(self) -> dict[Slot, nn.Parameter]:
        """Return what can be shared, by slot: cores by index, or bases by name; never those of a disabled core."""
        cores = [k for k in range(len(self.core_shapes)) if k not in self.disabled_cores]
        return {slot: self.cores.read(slot) for k in cores for slot in self.cores.slots(k)}

    def share(self, slot: Slot, owner: nn.ParameterDict, key: str) -> None:
        """Read a slot of `shareable()` from `owner[key]`, a Parameter of the same shape, from now on.

        The owner must be a module elsewhere in the model: it holds the Parameter in the state_dict and in
        `parameters()`, and this layer's own entry becomes None. A copy or a pickle of the whole model preserves the
        sharing. A frozen core freezes the owner's; a disabled one cannot be shared.

        Raises:
            KeyError: the owner does not hold `key`.
            TypeError, ValueError: the slot does not exist or belongs to a disabled core, the owner has another type, or
                the Parameter another shape.
        """
        slot, k = self.cores.slot(slot)
        if k in self.disabled_cores:
            raise ValueError(f"A disabled core cannot be shared; got core {k}: take it out of disabled_cores.")
        if not isinstance(owner, nn.ParameterDict):
            given = type(owner).__name__
            raise TypeError(f"owner must be an nn.ParameterDict; got a {given}: put the core into one.")
        if key not in owner:
            raise KeyError(f"owner must hold the core to share; got one without {key!r}: put the core there first.")
        shape = tuple(self.cores.read(slot).shape)
        if owner[key].shape != shape:
            raise ValueError(
                f"A shared core must have the shape of the core that it replaces, {shape}; got {key!r} with "
                f"{tuple(owner[key].shape)}: share only between layers of the same shape and rank."
            )
        self.cores.borrow(slot, owner, key)
        self.freeze_cores()

    @torch.no_grad()
    def _draw(self, init: str | float, center: int = -1) -> None:
        """Initialise the cores in place as `initialize_` does, including shared ones."""
        if init in (*CONSTANTS, *STRUCTURED) and not self.cores.are_parameters:
            raise ValueError(
                f"An init that sets each core needs cores that are Parameters; got init={init!r} "
                f"with format={self.format!r}: use a random init."
            )
        self.cores.reset(lambda cores: initialize_(cores, init, center))

    def _core_indices(self, indices: Iterable[int], name: str) -> tuple[int, ...]:
        if isinstance(indices, str) or not isinstance(indices, Iterable):
            raise TypeError(f"{name} must be a sequence of indices; got {indices!r}: pass e.g. (0, -1).")
        d = len(self.raw_shape[0])
        return tuple(sorted({index_below(index, d, f"each of {name}") for index in indices}))


def _replace(parameter: nn.Parameter, values: Tensor) -> None:
    """Give a Parameter values of another shape, in its own dtype and on its own device, and no gradient."""
    values = values.detach().to(parameter.device, parameter.dtype).clone()
    # A graph of an earlier step that is still alive has a node that expects gradients of the old shape and would be
    # reused. torch creates a new one when the dtype changes, so change it there and back.
    parameter.data = values.to(torch.float32 if parameter.dtype == torch.float64 else torch.float64)
    parameter.data = values
    parameter.grad = None


def vector_shape(features: int, name: str, d: int, raw_shape: Sequence[int] | None) -> RawShape:
    """Return the raw shape ((m_1, ..., m_d), (1, ..., 1)) of a TT vector, from its factors or, if None, from d."""
    features = positive_int(features, name)
    factors = factorize(features, d) if raw_shape is None else check_factors(raw_shape, "raw_shape")
    check_product(factors, features, name)
    return factors, (1,) * len(factors)
