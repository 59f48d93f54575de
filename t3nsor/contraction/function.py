"""The product with a chain of cores as one differentiable operation that saves its inputs and nothing else.

    y = x (B + W)^T + b       saved for the gradients: x, the cores, B;  halves, states and B + W are recomputed

Eager code calls an autograd.Function; compiled code calls the same kernels as the custom operator
`torch.ops.t3nsor.network_product`, which the compiler treats as opaque, without a graph break. Both choose their plan
when they run, by the sizes of that call. The compiler's on-disk cache is not keyed on the schemas of the operators: do
not change the arguments of one that has been released, but register a new one.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .planner import resolve
from .precision import autocast_off
from .strategy import Gradients, Wanted


def network_product(
    x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None, plan: str
) -> Tensor:
    """Return y (T, M), in the dtype of x, of x (T, N), cores (r, m, n, s), a frozen weight (M, N) and bias (M,)."""
    if torch.compiler.is_compiling():
        return torch.ops.t3nsor.network_product(x, list(cores), weight, bias, plan)
    if not torch.is_grad_enabled():  # an autograd.Function takes a third of the time of a small product
        return _product(x, cores, weight, bias, plan)
    return _NetworkProduct.apply(x, weight, bias, plan, *cores)


def _product(x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None, plan: str) -> Tensor:
    with autocast_off(x.device.type):
        strategy = resolve(plan, x, cores, weight).product
        return strategy.product(x, cores, weight, None if bias is None else bias.to(x.dtype))


def _gradients(
    g: Tensor, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, plan: str, wanted: Wanted
) -> Gradients:
    with autocast_off(x.device.type):
        chosen = resolve(plan, x, cores, weight)
        if wanted is Wanted.BOTH and chosen.input_gradient != chosen.core_gradients:
            for_input, _ = chosen.input_gradient.gradients(x, g, cores, weight, Wanted.INPUT)
            return for_input, chosen.core_gradients.gradients(x, g, cores, weight, Wanted.CORES)[1]
        strategy = chosen.input_gradient if Wanted.INPUT in wanted else chosen.core_gradients
        return strategy.gradients(x, g, cores, weight, wanted) if wanted else (None, None)


def _wanted(for_input: bool, for_cores: bool) -> Wanted:
    return (Wanted.INPUT if for_input else Wanted(0)) | (Wanted.CORES if for_cores else Wanted(0))


def _save(ctx: Any, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None, plan: str) -> None:
    ctx.save_for_backward(x, weight, *cores)
    ctx.plan, ctx.bias_dtype = plan, None if bias is None else bias.dtype


class _NetworkProduct(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: str, *cores: Tensor) -> Tensor:
        y = _product(x, cores, weight, bias, plan)
        return y.clone() if y._is_view() else y  # a view made in here could not be modified in place by the caller

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, bias, plan, *cores = inputs
        _save(ctx, x, cores, weight, bias, plan)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *cores = ctx.saved_tensors
        for_x, _, for_bias, _, *for_cores = ctx.needs_input_grad
        wanted = _wanted(for_x, any(for_cores))
        for_input, gradients = _gradients(g.contiguous(), x, cores, weight, ctx.plan, wanted)
        for_each_core = gradients or [None] * len(cores)  # autograd drops those of frozen cores
        return for_input, None, _bias_gradient(ctx, g) if for_bias else None, None, *for_each_core


# torch.autograd.Function.apply inspects the signature at every call, which takes 12 of a small forward's 150 us
_NetworkProduct.forward.__signature__ = inspect.signature(_NetworkProduct.forward)


def _bias_gradient(ctx: Any, g: Tensor) -> Tensor:
    return g.sum(0).to(ctx.bias_dtype)


@torch.library.custom_op(
    "t3nsor::network_product",
    mutates_args=(),
    schema="(Tensor x, Tensor[] cores, Tensor? weight, Tensor? bias, str plan) -> Tensor",
)
def _product_operator(x, cores, weight, bias, plan):
    return _product(x, cores, weight, bias, plan)


@_product_operator.register_fake
def _(x, cores, weight, bias, plan):
    rows = 1
    for core in cores:
        rows *= core.shape[1]
    return x.new_empty(x.shape[0], rows)


@torch.library.custom_op(
    "t3nsor::network_product_gradients",
    mutates_args=(),
    schema="(Tensor g, Tensor x, Tensor[] cores, Tensor? weight, str plan, bool for_x, bool for_cores) -> Tensor[]",
)
def _gradients_operator(g, x, cores, weight, plan, for_x, for_cores):
    for_input, gradients = _gradients(g, x, cores, weight, plan, _wanted(for_x, for_cores))
    return [t.contiguous() for t in (*([] if for_input is None else [for_input]), *(gradients or []))]


@_gradients_operator.register_fake
def _(g, x, cores, weight, plan, for_x, for_cores):
    like = [*([x] if for_x else []), *(cores if for_cores else [])]
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in like]


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _save(ctx, *inputs)


def _backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, weight, *cores = ctx.saved_tensors
    for_x, for_cores, _, for_bias, _ = ctx.needs_input_grad
    wanted, made = (for_x, any(for_cores)), []
    if any(wanted):
        gradients = torch.ops.t3nsor.network_product_gradients
        made = list(gradients(g.contiguous(), x, cores, weight, ctx.plan, *wanted))
    for_input = made.pop(0) if for_x else None
    for_each_core = made or [None] * len(cores)
    return for_input, for_each_core, None, _bias_gradient(ctx, g) if for_bias else None, None


_product_operator.register_autograd(_backward, setup_context=_setup_context)
