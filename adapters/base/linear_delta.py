"""Deltas of a frozen linear, and the pass of x through it.

    y = W x + b + sum of delta(x)          x (..., in) -> y (..., out)

One delta may be computed together with a dense W, in one contraction that adds to what W x has written; the others are
added.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from adapters.base.linear_layers import is_dense
from adapters.validation import ConfigurationError


class LinearDelta(nn.Module):
    """A change of y, as a map of x (..., in) to (..., out); of the weight, the bias or both."""

    is_linear = True
    """Whether it changes a weight and a bias, so that it can be merged."""

    fuses = False
    """Whether ``onto`` can be used now."""

    def delta_weight(self) -> Tensor | None:
        """The change of the weight, (out, in), or None."""

    def delta_bias(self) -> Tensor | None:
        """The change of the bias, (out,), or None."""

    def added_to(self, weight: Tensor) -> Tensor | None:
        """The weight (out, in) plus its change, in the dtype of ``weight``, or None if it does not change."""
        change = self.delta_weight()
        return None if change is None else weight + change.to(weight.dtype)

    def onto(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b and the change of it, with a frozen W (out, in) and b (out,), as one contraction."""
        raise NotImplementedError


def linear_with_deltas(x: Tensor, weight: Tensor, bias: Tensor | None, deltas: Sequence[LinearDelta]) -> Tensor:
    """W x + b plus all deltas, the first one that fuses computed together with a dense W (out, in) and b (out,)."""
    fused = next((delta for delta in deltas if delta.fuses), None) if is_dense(weight) else None
    if fused is None:
        return add_deltas(F.linear(x, weight, bias), x, deltas)  # (..., in) -> (..., out)
    return add_deltas(fused.onto(x, weight, bias), x, [delta for delta in deltas if delta is not fused])


def add_deltas(y: Tensor, x: Tensor, deltas: Sequence[LinearDelta]) -> Tensor:
    """y (..., out) plus each delta of x (..., in)."""
    for delta in deltas:
        y = y + delta(x).to(y.dtype)
    return y


def start_from_weight(delta: nn.Module, read: Callable[[], Tensor], path: str) -> None:
    """Start a delta from the weight of its linear, (out, in), which is read if its kind requires it.

    Raises:
        ConfigurationError: the weight of the linear at ``path`` has no principal part: it holds a NaN or an infinity,
            or is quantised and cannot be read.
    """
    if not hasattr(delta, "start_from"):
        return
    try:
        delta.start_from(read())
    except ValueError as error:
        raise ConfigurationError(
            f"Key 'init' of adapter kind 'tt_lora' needs weights that can be decomposed; got 'principal' "
            f"beside {path}: {error}"
        ) from error
