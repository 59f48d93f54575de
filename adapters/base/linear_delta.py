"""What every change of a frozen linear offers, and a linear with some of them.

    y = W x + b + sum of delta(x)          x (..., in) -> y (..., out)

One delta may be computed together with W, in one contraction that adds onto what W x wrote; the others add theirs.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from adapters.validation import ConfigurationError


class LinearDelta(nn.Module):
    """A change of y, as a map of x (..., in) to (..., out); of the weight, the bias or both."""

    is_linear = True
    """Whether the change is that of a weight and a bias, which can be merged."""

    fuses = False
    """Whether ``onto`` can be used now."""

    def delta_weight(self) -> Tensor | None:
        """The change of the weight, (out, in), or None."""

    def delta_bias(self) -> Tensor | None:
        """The change of the bias, (out,), or None."""

    def added_to(self, weight: Tensor) -> Tensor | None:
        """The weight (out, in) plus its change, in the dtype of ``weight``, or None where it does not change."""
        change = self.delta_weight()
        return None if change is None else weight + change.to(weight.dtype)

    def onto(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b and the change of it, with a frozen W (out, in) and b (out,), as one contraction."""
        raise NotImplementedError


def with_deltas(
    base: Callable[[Tensor], Tensor],
    x: Tensor,
    deltas: Sequence[LinearDelta],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """base(x) plus all changes of it; where ``weight`` and ``bias`` are all that base is, one is computed with them."""
    fused = None if weight is None else next((delta for delta in deltas if delta.fuses), None)
    y = base(x) if fused is None else fused.onto(x, weight, bias)  # (..., in) -> (..., out)
    for delta in deltas:
        if delta is not fused:
            y = y + delta(x).to(y.dtype)
    return y


def start_from_weight(delta: nn.Module, weight: Tensor, path: str) -> None:
    """Start a delta from the weight (out, in) that it stands beside; nothing happens where it starts by itself.

    Raises:
        ConfigurationError: the weight of the linear at ``path`` has no principal part: it holds a NaN or an infinity.
    """
    if not hasattr(delta, "start_from"):
        return
    try:
        delta.start_from(weight)
    except ValueError as error:
        raise ConfigurationError(
            f"Key 'init' of adapter kind 'tt_lora' starts from the weights that it adapts; got 'principal' "
            f"beside {path}: {error}"
        ) from error
