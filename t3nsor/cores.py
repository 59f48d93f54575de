"""The cores of a layer as parameters: its own, or read from elsewhere in the model.

core k   (r_{k-1}, m_k, n_k, r_k), one Parameter; a shared core's place here is None, and the core is read from the
         ParameterDict that owns it

What is shared goes by its slot: here that is the core's index.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from .shapes import index_below

Slot = int | str


class Cores(nn.ParameterList):
    """One Parameter for each core; where a format keeps other numbers, it has a subclass.

    Args:
        shapes: (r_{k-1}, m_k, n_k, r_k) of each core; none of them for a slice, which torch makes empty and fills.
        disabled: indices of the cores that are held at a fixed value, and so are plain Parameters in every format.
        basis_size: for formats that mix their cores from a basis; ValueError here.
    """

    are_parameters = True
    """Whether each core is a Parameter as it is, so that `reset` may give it any value."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]] = (),
        disabled: Iterable[int] = (),
        basis_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        if basis_size is not None:
            raise ValueError(
                f"basis_size is read by the format 'tensor_basis' only, but {basis_size!r} was given with another; "
                "leave it out."
            )
        super().__init__(torch.empty(shape, device=device, dtype=dtype) for shape in shapes)
        self._borrowed: dict[Slot, tuple[nn.ParameterDict, str]] = {}

    def live(self) -> list[Tensor]:
        """The cores as they are now."""
        return [self.read(k) for k in range(len(self))]

    def slots(self, k: int) -> list[Slot]:
        """What of core k can be shared."""
        return [k]

    def slot(self, given: Slot) -> tuple[Slot, int]:
        """A slot that someone named, and the core that it belongs to; TypeError or ValueError where there is none."""
        k = index_below(given, len(self), "slot")
        return k, k

    def numbers(self, k: int) -> list[nn.Parameter]:
        """All Parameters that core k depends on, and no other core does."""
        return [self.read(k)]

    def common(self) -> list[nn.Parameter]:
        """All Parameters that several cores depend on."""
        return []

    def read(self, slot: Slot) -> nn.Parameter:
        """The Parameter of a slot, the layer's own or the owner's."""
        if slot in self._borrowed:
            owner, key = self._borrowed[slot]
            return owner[key]
        places, k = self._place(slot)
        return places[k]

    def borrow(self, slot: Slot, owner: nn.ParameterDict, key: str) -> None:
        """From now on read a slot from `owner[key]`, and hold nothing there."""
        places, k = self._place(slot)
        places[k] = None
        self._borrowed[slot] = (owner, key)

    def is_shared(self, k: int) -> bool:
        """Whether anything of core k is read from elsewhere."""
        return any(slot in self._borrowed for slot in self.slots(k))

    def reset(self, fill: Callable[[Sequence[Tensor]], None]) -> None:
        """Draw the start values anew, in place; `fill` draws those of one chain of cores."""
        fill(self.live())

    def zero(self, k: int) -> None:
        """Set core k to zero, in place, so that it can learn."""
        self.read(k).zero_()

    def _place(self, slot: Slot) -> tuple[nn.ParameterList, int]:
        return self, slot
