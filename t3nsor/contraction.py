"""How a tensor network meets data; the one place where a plan is chosen.

A product with a batch of vectors is y = x W^T, x (..., N), W (M, N) -> y (..., M), by one of the plans

    "sequential"     core by core: (b, M_done, r, n, N_left) x (r, m, n, s) -> (b, M_done m, s, N_left)
    "materialised"   build W from the cores, then one dense product
    "auto"           the one of these with the fewest floating-point operations for this shape

In a tensor ring the outer rank r_0 is carried along (index c) and closed by a trace at the end; in a train it is 1.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .tensor_network import TensorNetwork

PLANS = ("sequential", "materialised")


def matmul(
    x: Tensor,
    tt: "TensorNetwork",
    plan: str = "auto",
    core_activation: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """x W^T for x of shape (..., N) and a network of shape (M, N): a tensor of shape (..., M).

    Dtypes: under autocast as `nn.Linear` (the autocast dtype, float64 is left alone). Otherwise the product is computed
    in the wider dtype of x and the cores and returned in x's, so that float32 cores serve a bfloat16 model.

    `core_activation` is applied after every core but the last; such a map is not linear and must be sequential.

    Raises:
        TypeError: x is not a floating-point tensor.
        ValueError: x's last dimension is not N, x is on another device than the cores, or the plan is unknown or cannot
            apply an activation.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating-point tensor, but {given} was given; convert it first.")
    M, N = tt.shape
    if x.dim() == 0 or x.shape[-1] != N:
        raise ValueError(f"The last dimension of x must be {N}, but its shape is {tuple(x.shape)}; pass (..., {N}).")
    if x.device != tt.device:
        raise ValueError(f"x must be where the cores are, but it is on {x.device} and they on {tt.device}; move one.")
    lowered = _autocast_dtype(x)
    compute_dtype = lowered or torch.promote_types(x.dtype, tt.dtype)
    flat = x.reshape(-1, N).to(compute_dtype)
    if choose_plan(flat.shape[0], tt, plan, core_activation) == "sequential":
        y = _sequential(flat, [core.to(compute_dtype) for core in tt.cores], core_activation)
    else:
        weight = materialise(tt.to(torch.promote_types(tt.dtype, compute_dtype))).to(compute_dtype)
        y = F.linear(flat, weight)  # (b, N) x (M, N) -> (b, M)
    return y.reshape(*x.shape[:-1], M).to(lowered or x.dtype)


def _sequential(x: Tensor, cores: Sequence[Tensor], core_activation: Callable[[Tensor], Tensor] | None) -> Tensor:
    """(b, N) and cores (r, m, n, s) of the same dtype -> (b, M)."""
    b, outer = x.shape[0], cores[0].shape[0]
    closing = torch.eye(outer, dtype=x.dtype, device=x.device)
    state = contract("bN,cr->bcrN", x, closing)  # (b, N) x (c, r) -> (b, c, r, N)
    state = state.reshape(b * outer, 1, outer, x.shape[1])  # (b c, M_done, r, N_left)
    for k, core in enumerate(cores):
        r, m, n, s = core.shape
        M, N = state.shape[1], state.shape[3] // n
        state = state.reshape(b * outer, M, r, n, N)
        state = contract("bMrnN,rmns->bMmsN", state, core)  # (b, M, r, n, N) x (r, m, n, s) -> (b, M, m, s, N)
        state = state.reshape(b * outer, M * m, s, N)
        if core_activation is not None and k < len(cores) - 1:
            state = core_activation(state)
    return contract("bcMc->bM", state.reshape(b, outer, state.shape[1], outer))  # (b, c, M, c) -> (b, M)


def contract(equation: str, *operands: Tensor) -> Tensor:
    """`torch.einsum` in the dtype of its operands, also under autocast, which would lower it."""
    device_type = operands[0].device.type
    if not _autocast_is_on(device_type):
        return torch.einsum(equation, *operands)
    with torch.autocast(device_type, enabled=False):
        return torch.einsum(equation, *operands)


def materialise(tt: "TensorNetwork") -> Tensor:
    """The dense matrix (M, N) of a network, in the dtype of its cores."""
    outer = tt.ranks[0]
    matrix = torch.eye(outer, dtype=tt.dtype, device=tt.device).reshape(outer, 1, 1, outer)
    for core in tt.cores:
        matrix = contract("cMNr,rmns->cMmNns", matrix, core)  # (c, M, N, r) x (r, m, n, s) -> (c, M, m, N, n, s)
        matrix = matrix.flatten(3, 4).flatten(1, 2)  # (c, M m, N n, s)
    return contract("cMNc->MN", matrix)  # (c, M, N, c) -> (M, N)


def gather_rows(tt: "TensorNetwork", indices: Tensor) -> Tensor:
    """Rows of the matrix without building it: integer indices (...) -> (..., N), in the dtype of the cores.

    The digits of an index in base (m_1, ..., m_d), the last one running fastest, choose one slice of each core.
    """
    outer, stride = tt.ranks[0], tt.shape[0]
    flat = indices.reshape(-1)
    rows = torch.eye(outer, dtype=tt.dtype, device=tt.device).expand(flat.shape[0], outer, outer)[:, :, None]
    for core in tt.cores:
        stride //= core.shape[1]
        chosen = core[:, flat // stride % core.shape[1]]  # (r, b, n, s)
        rows = contract("bcNr,rbns->bcNns", rows, chosen)  # (b, c, N, r) x (r, b, n, s) -> (b, c, N, n, s)
        rows = rows.flatten(2, 3)  # (b, c, N n, s)
    return contract("bcNc->bN", rows).reshape(*indices.shape, tt.shape[1])  # (b, c, N, c) -> (..., N)


class PlanCost(NamedTuple):
    """What one plan costs in the forward direction; `bytes` are those of the tensors it writes."""

    plan: str
    flops: int
    bytes: int


class Explanation(NamedTuple):
    """The plans for one product with their costs, and the one that "auto" takes; print it for a table."""

    costs: tuple[PlanCost, ...]
    chosen: str

    def __str__(self) -> str:
        lines = [f"{'plan':<14}{'flops':>18}{'bytes':>18}"]
        for plan, flops, size in self.costs:
            lines.append(f"{plan:<14}{flops:>18,}{size:>18,}{'  <- auto' if plan == self.chosen else ''}")
        return "\n".join(lines)


def explain(x_shape: Sequence[int], tt: "TensorNetwork") -> Explanation:
    """The plans for an x of shape `x_shape` with their flops and bytes; `print(explain(...))` is a table."""
    N = tt.shape[1]
    if not isinstance(x_shape, Sequence) or len(x_shape) == 0 or x_shape[-1] != N:
        raise ValueError(f"x_shape must end with {N}, but {x_shape} was given; pass (..., {N}).")
    batch = math.prod(x_shape[:-1])
    return Explanation(plan_costs(batch, tt), choose_plan(batch, tt))


def choose_plan(
    batch: int,
    tt: "TensorNetwork",
    plan: str = "auto",
    core_activation: Callable[[Tensor], Tensor] | None = None,
) -> str:
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
    sequential, materialised = plan_costs(batch, tt)
    return "sequential" if sequential.flops <= materialised.flops else "materialised"


def plan_costs(batch: int, tt: "TensorNetwork") -> tuple[PlanCost, PlanCost]:
    """The costs of the two plans, in the order of `PLANS`, for `batch` vectors."""
    M, N = tt.shape
    done_rows, done_columns = 1, 1
    sequential_flops = sequential_size = 0
    dense_flops, dense_size = 2 * batch * M * N, batch * M
    for r, m, n, s in (core.shape for core in tt.cores):
        done_rows, done_columns = done_rows * m, done_columns * n
        state = batch * tt.ranks[0] * done_rows * s * (N // done_columns)
        sequential_flops += 2 * state * r * n
        sequential_size += state
        built = tt.ranks[0] * done_rows * done_columns * s
        dense_flops += 2 * built * r
        dense_size += built
    itemsize = tt.dtype.itemsize
    return (
        PlanCost("sequential", sequential_flops, sequential_size * itemsize),
        PlanCost("materialised", dense_flops, dense_size * itemsize),
    )


def _autocast_is_on(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast gives a product with x, or None where autocast is off or leaves x alone."""
    if x.dtype == torch.float64 or not _autocast_is_on(x.device.type):
        return None
    return torch.get_autocast_dtype(x.device.type)
