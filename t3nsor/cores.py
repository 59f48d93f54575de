"""The cores of a layer as parameters: the layer's own, or read from elsewhere in the model.

core k   (r_{k-1}, m_k, n_k, r_k), one Parameter; the entry of a shared core is None, and the core is read from the
         ParameterDict that owns it

A slot names what can be shared: here it is the index of a core.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from .shapes import index_below

Slot = int | str
CoreShape = tuple[int, int, int, int]


class Cores(nn.ParameterList):
    """One Parameter for each core; formats with other parameters subclass it.

    Args:
        core_shapes: (r_{k-1}, m_k, n_k, r_k) of each core; empty for a slice, which torch creates empty and fills.
        disabled: indices of the cores that are held at a fixed value, as plain Parameters in every format.
        stored_shapes: the shapes of the Parameters, of a format that does not store its cores.
    """

    are_parameters = True
    """Whether each core is itself a Parameter, so that `reset` may give it any value."""

    def __init__(
        self,
        core_shapes: Sequence[CoreShape] = (),
        disabled: Iterable[int] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        stored_shapes: Sequence[tuple[int, ...]] | None = None,
    ):
        shapes = core_shapes if stored_shapes is None else stored_shapes
        super().__init__(torch.empty(shape, device=device, dtype=dtype) for shape in shapes)
        self.core_shapes = list(core_shapes)
        self._borrowed: dict[Slot, tuple[nn.ParameterDict, str]] = {}

    def live(self) -> list[Tensor]:
        """Return the current cores."""
        if not self._borrowed:
            return [self._parameters[key] for key in self._parameters]  # by key: ZeRO-3 gathers a core that is read so
        return [self.read(k) for k in range(len(self))]

    def slots(self, k: int) -> list[Slot]:
        """Return what can be shared of core k."""
        return [k]

    def slot(self, given: Slot) -> tuple[Slot, int]:
        """Return the slot and the core that it belongs to; TypeError or ValueError if it does not exist."""
        k = index_below(given, len(self), "slot")
        return k, k

    def parameters_of(self, k: int) -> list[nn.Parameter]:
        """Return all Parameters that core k depends on, and no other core does."""
        return [self.read(k)]

    def joint_parameters(self) -> list[nn.Parameter]:
        """Return all Parameters that several cores depend on."""
        return []

    def read(self, slot: Slot) -> nn.Parameter:
        """Return the Parameter of a slot, the layer's own or the owner's."""
        if slot in self._borrowed:
            owner, key = self._borrowed[slot]
            return owner[key]
        entries, k = self._entry(slot)
        return entries[k]

    def borrow(self, slot: Slot, owner: nn.ParameterDict, key: str) -> None:
        """Read a slot from `owner[key]` from now on, and drop the layer's own Parameter."""
        entries, k = self._entry(slot)
        entries[k] = None
        self._borrowed[slot] = (owner, key)

    def is_shared(self, k: int) -> bool:
        """Return whether any part of core k is read from elsewhere."""
        return any(slot in self._borrowed for slot in self.slots(k))

    def reset(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        """Draw new initial values in place; `fill` draws those of one chain of cores."""
        fill(self.live())

    def zero(self, k: int) -> None:
        """Set core k to zero in place, such that it still gets a gradient."""
        self.zero_parameter(k).zero_()

    def zero_parameter(self, k: int) -> nn.Parameter:
        """Return the Parameter that is zero while core k is at zero by `zero`."""
        return self.read(k)

    def set_mean_squares(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        """Set all values in place to their mean squares at the start; `fill` sets those of one chain of cores."""
        self.reset(fill)

    def _entry(self, slot: Slot) -> tuple[nn.ParameterList, int]:
        """Return the list that holds the Parameter of a slot, and its index there."""
        return self, slot
