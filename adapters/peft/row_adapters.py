"""The adapter of each row of a batch, and the pass of the batch through one linear; see ``adapters.peft.mixed_batch``.

x (rows, ..., in)            one name for each row: that of an adapter, or "__base__" for the base model alone
y = W x + b                  of all rows at once
y[R_a] += delta_a(x[R_a])    for each adapter a, with R_a its rows: one contraction each
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.base.linear_delta import LinearDelta
from adapters.validation import ConfigurationError

BASE = "__base__"
"""The name for no adapter, as in PEFT."""


@dataclass(frozen=True)
class RowAdapters:
    """The adapter of each row of a batch.

    Args:
        names: of the adapters, one for each row that the caller passed.
        repeats: how often ``generate`` repeats a row.
    """

    names: tuple[str, ...]
    repeats: int = 1

    def of(self, x: Tensor) -> list[str]:
        """The name for each row of x (rows, ...).

        Raises:
            ConfigurationError: x has neither one row for each name nor ``repeats`` of them.
        """
        if len(x) not in (len(self.names), len(self.names) * self.repeats):
            raise ConfigurationError(
                f"adapter_names has one name for each row of the batch, the first dimension; got {len(self.names)} "
                f"names for {len(x)} rows: name the adapter of each row, {BASE!r} for none, and pass num_beams and "
                "num_return_sequences to generate itself."
            )
        return [name for name in self.names for _ in range(len(x) // len(self.names))]


def add_deltas_by_row(y: Tensor, x: Tensor, deltas: Mapping[str, LinearDelta], names: Sequence[str]) -> Tensor:
    """y (rows, ..., out) plus, in each row, the delta of its adapter of x (rows, ..., in).

    Args:
        deltas: by adapter; a row of an adapter that has none here stays as it is.
        names: the adapter of each row.
    """
    for name in dict.fromkeys(names):
        if name in deltas:
            rows = torch.tensor([row for row, other in enumerate(names) if other == name], device=x.device)
            y = y.index_add(0, rows, deltas[name](x[rows]).to(y.dtype))
    return y
