"""The product of a batch with a tensor network, alone or added to a frozen linear layer: y = x (B + W)^T + b."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .function import network_product
from .plans import Plan
from .precision import autocast_dtype, autocast_off
from .sequential import Sequential

if TYPE_CHECKING:
    from ..tensor_network import TensorNetwork

CHOSEN = ("auto", "timed")
"""The plans that are chosen by cost, estimated or measured."""


def matmul(
    x: Tensor,
    tt: "TensorNetwork",
    plan: str | Plan = "auto",
    core_activation: Callable[[Tensor], Tensor] | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """x (weight + W)^T + bias for x of shape (..., N) and a network W of shape (M, N): a tensor of shape (..., M).

    Args:
        plan: "auto", "timed", or a `Plan` or its text, see `t3nsor.contraction.plans`.
        core_activation: applied after every core but the last; such a map is not linear: it is computed core by core,
            by torch's own autograd, and takes no weight.
        weight: a dense (M, N) that the network changes. One that is trained itself is left out of the fusing.
        bias: (M,).

    Dtypes: under autocast as `nn.Linear` (the autocast dtype, float64 is left alone). Otherwise, with a weight, in the
    dtype of x, which is the weight's; without one in the wider dtype of x and the cores, returned in x's, so that
    float32 cores serve a bfloat16 model. What depends on the cores alone is computed in their dtype and cast once.

    Raises:
        TypeError: x is not a floating-point tensor.
        ValueError: x's last dimension is not N, x is on another device than the cores, a weight or bias does not fit,
            or the plan is unknown or cannot apply an activation.
    """
    _check_input(x, tt)
    M, N = tt.shape
    lowered = autocast_dtype(x)
    _check_frozen(x, (M, N), weight, bias, lowered)
    text = str(plan)
    if not torch.compiler.is_compiling():  # which cannot follow how a plan is read
        check_plan(text, len(tt.cores))
    _check_activation(text, core_activation)
    compute = lowered or (x.dtype if weight is not None else torch.promote_types(x.dtype, tt.dtype))
    flat = x.reshape(-1, N).to(compute)
    wide = torch.promote_types(tt.dtype, compute)
    cores = [core.to(wide) for core in tt.cores]
    if core_activation is not None:
        if weight is not None:
            raise ValueError(
                "A network with activations between its cores is no matrix and cannot be added to a weight, but both "
                "were given; add the two products instead."
            )
        with autocast_off(x.device.type):
            y = Sequential().add(flat, cores, None if bias is None else bias.to(compute), core_activation)
    elif weight is not None and weight.requires_grad:
        frozen = F.linear(flat, weight.to(compute), None if bias is None else bias.to(compute))
        y = frozen + network_product(flat, cores, None, None, text)
    else:
        y = network_product(flat, cores, weight, bias, text)
    return y.reshape(*x.shape[:-1], M).to(lowered or x.dtype)


def check_plan(plan: str | Plan, cores: int, core_activation: Callable[[Tensor], Tensor] | None = None) -> str:
    """The text of a plan; ValueError when it is unknown or cannot apply an activation between cores."""
    text = str(plan)
    if text not in CHOSEN:
        Plan.parse(text, cores)
    _check_activation(text, core_activation)
    return text


def _check_activation(plan: str, core_activation: Callable[[Tensor], Tensor] | None) -> None:
    if core_activation is not None and plan not in (*CHOSEN, "sequential"):
        raise ValueError(
            f"An activation between the cores needs them one by one, but plan={plan!r} was given; "
            "use plan='sequential' or 'auto'."
        )


def _check_input(x: Tensor, tt: "TensorNetwork") -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating-point tensor, but {given} was given; convert it first.")
    N = tt.shape[1]
    if x.dim() == 0 or x.shape[-1] != N:
        raise ValueError(f"The last dimension of x must be {N}, but its shape is {tuple(x.shape)}; pass (..., {N}).")
    if x.device != tt.device:
        raise ValueError(f"x must be where the cores are, but it is on {x.device} and they on {tt.device}; move one.")


def _check_frozen(
    x: Tensor, shape: tuple[int, int], weight: Tensor | None, bias: Tensor | None, lowered: torch.dtype | None
) -> None:
    for name, tensor, expected in (("weight", weight, shape), ("bias", bias, shape[:1])):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(
                f"The {name} must have the shape {expected}, but it is {tuple(tensor.shape)}; "
                "take that of the same layer."
            )
    if weight is not None and weight.dtype != x.dtype and lowered is None:
        raise ValueError(
            "x and the weight must have one dtype where autocast does not lower them, but they are "
            f"{x.dtype} and {weight.dtype}; convert one."
        )
