"""What the layers have in common: the cores as parameters, and the tensor network that they stand for.

raw_shape  ((m_1, ..., m_d), (n_1, ..., n_d))       ranks  (r_0, r_1, ..., r_d), r_0 = r_d = 1 but in a ring
cores      nn.ParameterList of (r_{k-1}, m_k, n_k, r_k), the only place where the numbers live; see `Cores`, also for
           what a layer reads from elsewhere, and its subclasses for formats that hold other numbers

A frozen core keeps its start value; a disabled one is held at the identity-like element that its layer documents. Of
both, requires_grad is False.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .cores import Cores, Slot
from .formats import get_format
from .initializers import CONSTANTS, STRUCTURED, initialize_
from .shapes import RawShape, check_factors, check_product, factorize, index_below, positive_int
from .tensor_network import TensorNetwork


class TTModule(nn.Module):
    """A module whose weight is a tensor network; a subclass sets values in `reset_parameters()`, in place.

    Args:
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)), already checked.
        tt_rank: as the format's `resolve_ranks` takes it.
        frozen_cores, disabled_cores: indices of cores, negative ones from the end; see the head of this file.
        format: a name in `FORMATS`.
        basis_size: the number of basis cores of the format "tensor_basis"; None for its default.
    """

    def __init__(
        self,
        raw_shape: RawShape,
        tt_rank: int | Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        frozen_cores: Iterable[int] = (),
        disabled_cores: Iterable[int] = (),
        format: str = "tensor_train",
        basis_size: int | None = None,
    ):
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point one, but {dtype} was given; use e.g. torch.float32.")
        super().__init__()
        self.raw_shape, self.format = raw_shape, format
        self.core_shapes = get_format(format).core_shapes(raw_shape, tt_rank)
        self.frozen_cores = self._core_indices(frozen_cores, "frozen_cores")
        self.disabled_cores = self._core_indices(disabled_cores, "disabled_cores")
        if both := sorted(set(self.frozen_cores) & set(self.disabled_cores)):
            raise ValueError(
                f"A core is either frozen or disabled, but {both} are in both lists; a disabled core is never trained, "
                "so take them out of frozen_cores."
            )
        self.cores = get_format(format).make_cores(
            raw_shape, tt_rank, self.disabled_cores, basis_size, device=device, dtype=dtype
        )
        self.freeze_cores()

    @property
    def ranks(self) -> tuple[int, ...]:
        """(r_0, r_1, ..., r_d)."""
        return (self.core_shapes[0][0], *(shape[3] for shape in self.core_shapes))

    def live_cores(self) -> list[Tensor]:
        """The cores (r_{k-1}, m_k, n_k, r_k) as they are now, shared and mixed ones included."""
        return self.cores.live()

    @torch.no_grad()
    def set_cores(self, cores: Sequence[Tensor]) -> None:
        """Put copies of these cores, of other ranks perhaps, into the same Parameters; gradients are dropped.

        Args:
            cores: (r_{k-1}, m_k, n_k, r_k) with the factors of `raw_shape`, and r_0 and r_d as they are.

        Raises:
            ValueError: cores do not fit each other or the layer, or it mixes, shares or disables cores.
        """
        network = get_format(self.format)(cores)
        shapes = [tuple(core.shape) for core in network.cores]
        fixed = [k for k in range(len(self.cores)) if k in self.disabled_cores or self.cores.is_shared(k)]
        if type(self.cores) is not Cores or fixed:
            raise ValueError(
                "A layer takes other cores where each is a trained Parameter of its own, but this one has "
                f"format={self.format!r} and disabled or shared cores {fixed}; build another layer."
            )
        if network.raw_shape != self.raw_shape or network.ranks[0] != self.ranks[0]:
            raise ValueError(
                f"New cores must have the factors {self.raw_shape} and the outer rank {self.ranks[0]} of the layer, "
                f"but their shapes are {shapes}; only interior ranks may differ."
            )
        for parameter, core in zip(self.cores, cores, strict=True):
            _replace(parameter, core)
        self.core_shapes = shapes

    def freeze_cores(self) -> None:
        """Set requires_grad of the frozen and the disabled cores to False, as when the layer was built."""
        for k in (*self.frozen_cores, *self.disabled_cores):
            for parameter in self.cores.numbers(k):
                parameter.requires_grad_(False)

    def network(self) -> TensorNetwork:
        """The weight as a network over the live parameters: gradients flow into them."""
        return get_format(self.format)(self.live_cores())

    def full(self) -> Tensor:
        """The dense weight, differentiable in the cores."""
        return self.network().full()

    def shareable(self) -> dict[Slot, nn.Parameter]:
        """What could be shared, by slot: the cores by index, or their bases by name; never those of a disabled core."""
        cores = [k for k in range(len(self.core_shapes)) if k not in self.disabled_cores]
        return {slot: self.cores.read(slot) for k in cores for slot in self.cores.slots(k)}

    def share(self, slot: Slot, owner: nn.ParameterDict, key: str) -> None:
        """From now on read a slot of `shareable()` from `owner[key]`, a Parameter of the same shape.

        The owner must be a module elsewhere in the model: it holds the Parameter in the state_dict and in
        `parameters()`, and this layer's own place becomes None. A copy or a pickle of the whole model keeps the
        sharing. A frozen core freezes the owner's; a disabled one must not be shared.

        Raises:
            KeyError: the owner does not hold `key`.
            TypeError, ValueError: no such slot or a disabled core's, an owner of another type, or another shape.
        """
        slot, k = self.cores.slot(slot)
        if k in self.disabled_cores:
            raise ValueError(f"A shared core must not be disabled, but core {k} is; take it out of disabled_cores.")
        if not isinstance(owner, nn.ParameterDict):
            given = type(owner).__name__
            raise TypeError(f"owner must be an nn.ParameterDict, but it is a {given}; put the core into one.")
        if key not in owner:
            raise KeyError(f"owner must hold the core to share, but it has no {key!r}; put the core there first.")
        shape = tuple(self.cores.read(slot).shape)
        if owner[key].shape != shape:
            raise ValueError(
                f"A shared core must have the shape of the core that it replaces, {shape}, but {key!r} "
                f"has {tuple(owner[key].shape)}; share only between layers of the same shape and rank."
            )
        self.cores.borrow(slot, owner, key)
        self.freeze_cores()

    @torch.no_grad()
    def _draw(self, init: str | float, center: int = -1) -> None:
        """Give the cores the start `init` of `initialize_`, in place, those that are shared included."""
        if init in (*CONSTANTS, *STRUCTURED) and not self.cores.are_parameters:
            raise ValueError(
                f"A start that says what each core is needs cores that are Parameters, but init={init!r} was given "
                f"with format={self.format!r}; use a random init."
            )
        self.cores.reset(lambda cores: initialize_(cores, init, center))

    def _core_indices(self, indices: Iterable[int], name: str) -> tuple[int, ...]:
        if isinstance(indices, str) or not isinstance(indices, Iterable):
            raise TypeError(f"{name} must be a sequence of indices, but {indices!r} was given; pass e.g. (0, -1).")
        return tuple(sorted({index_below(index, len(self.core_shapes), f"each of {name}") for index in indices}))


def _replace(parameter: nn.Parameter, values: Tensor) -> None:
    """Give a Parameter values of another shape, in its own dtype and on its own device, and no gradient."""
    values = values.detach().to(parameter.device, parameter.dtype).clone()
    # A graph of an earlier step that is still alive has a node that expects gradients of the old shape, and would be
    # used again. torch makes a new one where the dtype changes, so it is changed there and back.
    parameter.data = values.to(torch.float32 if parameter.dtype == torch.float64 else torch.float64)
    parameter.data = values
    parameter.grad = None


def vector_shape(features: int, name: str, d: int, raw_shape: Sequence[int] | None) -> RawShape:
    """The raw shape ((m_1, ..., m_d), (1, ..., 1)) of a TT vector, from its factors or, where they are None, from d."""
    features = positive_int(features, name)
    factors = factorize(features, d) if raw_shape is None else check_factors(raw_shape, "raw_shape")
    check_product(factors, features, name)
    return factors, (1,) * len(factors)
