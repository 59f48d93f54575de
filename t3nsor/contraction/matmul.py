"""The product of a batch with a tensor network, alone or added to a frozen linear layer: y = x (B + W)^T + b."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .function import network_product
from .network import Network
from .plans import Plan
from .precision import autocast_dtype, autocast_off
from .sequential import Sequential

CHOSEN = ("auto", "timed")
"""The plans that are chosen by cost, estimated or measured."""


def matmul(
    x: Tensor,
    tt: Network,
    plan: str | Plan = "auto",
    core_activation: Callable[[Tensor], Tensor] | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return x (weight + W)^T + bias, (..., N) -> (..., M), for a network W of shape (M, N).

    Args:
        x: (..., N).
        tt: the network, such as a `TensorTrain`.
        plan: "auto", "timed", or a `Plan` or its text, see `t3nsor.contraction.plans`.
        core_activation: applied after every core but the last; the map is then not linear: it is computed core by core,
            with torch's own autograd, and cannot be combined with a weight.
        weight: a dense (M, N) to which the network is a delta. A trainable one is not fused with the network.
        bias: (M,).

    Dtypes: under autocast as `nn.Linear` (the autocast dtype; float64 is kept). Otherwise, with a weight, in the dtype
    of x, which must be the weight's; without one in the wider dtype of x and the cores, returned in x's, so that
    float32 cores work in a bfloat16 model. What depends on the cores alone is computed in their dtype and cast once.

    Raises:
        TypeError: x is not a floating-point tensor.
        ValueError: x's last dimension is not N, x is on another device than the cores, a weight or bias does not fit,
            or the plan is unknown or cannot apply an activation.
    """
    M, N = tt.shape
    _check_input(x, N, tt.device)
    lowered = autocast_dtype(x)
    _check_frozen(x, (M, N), weight, bias, lowered)
    text = str(plan)
    if not torch.compiler.is_compiling():  # parsing a plan cannot be traced
        check_plan(text, len(tt.cores))
    _check_activation(text, core_activation)
    compute = lowered or (x.dtype if weight is not None else torch.promote_types(x.dtype, tt.dtype))
    flat = x.reshape(-1, N).to(compute)
    wide = torch.promote_types(tt.dtype, compute)
    cores = tt.cores if tt.dtype == wide else [core.to(wide) for core in tt.cores]
    if core_activation is not None:
        if weight is not None:
            raise ValueError(
                "A network with activations between its cores is not a matrix and cannot be added to a weight; got "
                "both core_activation and weight: add the two products instead."
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
    """Return the text of a plan; ValueError if it is unknown or cannot apply an activation between cores."""
    text = str(plan)
    if text not in CHOSEN:
        Plan.parse(text, cores)
    _check_activation(text, core_activation)
    return text


def _check_activation(plan: str, core_activation: Callable[[Tensor], Tensor] | None) -> None:
    if core_activation is not None and plan not in (*CHOSEN, "sequential"):
        raise ValueError(
            "Activations between the cores are computed core by core; "
            f"got plan={plan!r}: use plan='sequential' or 'auto'."
        )


def _check_input(x: Tensor, N: int, device: torch.device) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating-point tensor; got {given}: convert it first.")
    if x.dim() == 0 or x.shape[-1] != N:
        raise ValueError(f"The last dimension of x must be {N}; got the shape {tuple(x.shape)}: pass (..., {N}).")
    if x.device != device:
        raise ValueError(f"x and the cores must be on one device; got {x.device} and {device}: move one of them.")


def _check_frozen(
    x: Tensor, shape: tuple[int, int], weight: Tensor | None, bias: Tensor | None, lowered: torch.dtype | None
) -> None:
    for name, tensor, expected in (("weight", weight, shape), ("bias", bias, shape[:1])):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(
                f"The {name} must have the shape {expected}; got {tuple(tensor.shape)}: "
                "pass the one of the layer that the network is added to."
            )
    if weight is not None and weight.dtype != x.dtype and lowered is None:
        raise ValueError(
            "Without autocast, x and the weight must have one dtype; got "
            f"{x.dtype} and {weight.dtype}: convert one of them."
        )
