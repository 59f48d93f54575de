"""How a tensor network is multiplied with a batch of vectors; the one place where a plan is chosen.

    y = x W^T      x (..., N), W (M, N) -> y (..., M)

    "sequential"     core by core: (b, M_done, r, n, N_left) x (r, m, n, s) -> (b, M_done m, s, N_left)
    "materialised"   build W from the cores, then one dense product
    "auto"           the plan with the fewest floating-point operations for this shape

In a tensor ring the outer rank r_0 is carried along as part of the batch and closed by a trace at the end.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .tensor_network import TensorNetwork

PLANS = ("sequential", "materialised")


class PlanCost(NamedTuple):
    """What one plan costs in the forward direction."""

    plan: str
    flops: int
    bytes: int  # written and read again: the intermediate tensors and the result


class Explanation(NamedTuple):
    """The plans for one product with their costs, and the one that "auto" takes; print it for a table."""

    costs: tuple[PlanCost, ...]
    chosen: str

    def __str__(self) -> str:
        lines = [f"{'plan':<14}{'flops':>18}{'bytes':>18}"]
        for plan, flops, size in self.costs:
            lines.append(f"{plan:<14}{flops:>18,}{size:>18,}{'  <- auto' if plan == self.chosen else ''}")
        return "\n".join(lines)


def matmul(
    x: Tensor, tt: "TensorNetwork", plan: str = "auto", core_activation: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """x W^T for x of shape (..., N) and a network of shape (M, N): a tensor of shape (..., M).

    Dtype: as for `nn.Linear` under autocast (the autocast dtype; float64 is left alone). Otherwise the product is computed
    in the wider of the two dtypes and the result has x's dtype, so that float32 cores serve a bfloat16 model.

    `core_activation` is applied after every core but the last; the map is then not linear and must be sequential.

    Raises:
        TypeError: x is not a floating-point tensor.
        ValueError: x's last dimension is not N, or the plan is unknown or cannot apply an activation.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor, but its dtype is {x.dtype}; convert it first.")
    rows, columns = tt.shape
    if x.dim() == 0 or x.shape[-1] != columns:
        raise ValueError(f"x must have the last dimension {columns}, but its shape is {tuple(x.shape)}; pass (..., {columns}).")
    lowered = _autocast_dtype(x)
    compute_dtype = lowered or torch.promote_types(x.dtype, tt.dtype)
    flat = x.reshape(-1, columns).to(compute_dtype)
    if choose_plan(flat.shape[0], tt, plan, core_activation) == "sequential":
        y = _sequential(flat, [core.to(compute_dtype) for core in tt.cores], core_activation)
    else:
        y = F.linear(flat, materialise(tt).to(compute_dtype))  # (b, N) x (M, N) -> (b, M)
    return y.reshape(*x.shape[:-1], rows).to(lowered or x.dtype)


def choose_plan(batch: int, tt: "TensorNetwork", plan: str, core_activation: Callable | None = None) -> str:
    """The plan that `plan` stands for; ValueError when it is unknown or cannot apply an activation between cores."""
    if plan not in (*PLANS, "auto"):
        raise ValueError(f"plan must be one of auto, {', '.join(PLANS)}, but {plan!r} was given; choose one of them.")
    if core_activation is not None:
        if plan == "materialised":
            raise ValueError(
                "An activation between the cores needs them one by one, but plan='materialised' was given; "
                "use plan='sequential' or 'auto'."
            )
        return "sequential"
    if plan != "auto":
        return plan
    return min(plan_costs(batch, tt), key=lambda cost: cost.flops).plan


def plan_costs(batch: int, tt: "TensorNetwork") -> tuple[PlanCost, ...]:
    """The cost of each plan for `batch` vectors."""
    rows, columns = tt.shape
    sequential_flops = sequential_bytes = dense_flops = dense_bytes = 0
    done_rows, done_columns, left_columns = 1, 1, columns
    for core in tt.cores:
        r, m, n, s = core.shape
        left_columns //= n
        carried = batch * tt.ranks[0] * done_rows * m * s * left_columns
        sequential_flops += 2 * carried * r * n
        sequential_bytes += carried
        done_rows, done_columns = done_rows * m, done_columns * n
        built = tt.ranks[0] * done_rows * done_columns * s
        dense_flops += 2 * built * r
        dense_bytes += built
    dense_flops += 2 * batch * rows * columns
    dense_bytes += batch * rows
    size = tt.cores[0].element_size()
    return (
        PlanCost("sequential", sequential_flops, sequential_bytes * size),
        PlanCost("materialised", dense_flops, dense_bytes * size),
    )


def explain(x_shape: Sequence[int], tt: "TensorNetwork") -> Explanation:
    """The plans for an input of shape `x_shape` with their forward flops and bytes; `print(explain(...))` is a table."""
    rows, columns = tt.shape
    if len(x_shape) == 0 or x_shape[-1] != columns:
        raise ValueError(f"x_shape must end with {columns}, but {tuple(x_shape)} was given; pass (..., {columns}).")
    batch = math.prod(x_shape[:-1])
    return Explanation(plan_costs(batch, tt), choose_plan(batch, tt, "auto"))


def materialise(tt: "TensorNetwork") -> Tensor:
    """The dense matrix (M, N) of a network, in the dtype of its cores also under autocast."""
    outer = tt.ranks[0]
    with torch.autocast(tt.device.type, enabled=False) if _autocast_is_on(tt.device.type) else nullcontext():
        matrix = torch.eye(outer, dtype=tt.dtype, device=tt.device).reshape(outer, 1, 1, outer)
        for core in tt.cores:
            matrix = torch.einsum("cMNr,rmns->cMmNns", matrix, core)  # (c, M, N, r) x (r, m, n, s) -> (c, M, m, N, n, s)
            matrix = matrix.flatten(3, 4).flatten(1, 2)  # (c, M m, N n, s)
        return torch.einsum("cMNc->MN", matrix)


def _sequential(x: Tensor, cores: Sequence[Tensor], core_activation: Callable[[Tensor], Tensor] | None) -> Tensor:
    """(b, N) and cores (r, m, n, s) of the same dtype -> (b, M)."""
    batch, outer = x.shape[0], cores[0].shape[0]
    state = x.reshape(batch, 1, 1, 1, -1) * torch.eye(outer, dtype=x.dtype, device=x.device).reshape(1, outer, 1, outer, 1)
    state = state.reshape(batch * outer, 1, outer, x.shape[1])  # (b c, M_done, r, N_left)
    for k, core in enumerate(cores):
        r, m, n, s = core.shape
        rows, columns = state.shape[1], state.shape[3] // n
        state = state.reshape(batch * outer, rows, r, n, columns)
        state = torch.einsum("bMrnN,rmns->bMmsN", state, core)  # (b, M, r, n, N) x (r, m, n, s) -> (b, M, m, s, N)
        state = state.reshape(batch * outer, rows * m, s, columns)
        if core_activation is not None and k < len(cores) - 1:
            state = core_activation(state)
    return torch.einsum("bcMc->bM", state.reshape(batch, outer, -1, outer))


def _autocast_is_on(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast gives a product with x, or None where autocast is off or leaves x alone."""
    if x.dtype == torch.float64 or not _autocast_is_on(x.device.type):
        return None
    return torch.get_autocast_dtype(x.device.type)
