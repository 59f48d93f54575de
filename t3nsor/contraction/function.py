"""The product with a chain of cores as one differentiable operation that saves its inputs and nothing else.

    y = x (B + W)^T + b       saved for the gradients: x, the cores, B;  halves, states and B + W are made anew

Eager code calls an autograd.Function; compiled code calls the same kernels as the custom operator
`torch.ops.t3nsor.network_product`, which the compiler takes as a whole: it does not look into it and does not break.
Both choose their plan when they run, by the sizes of that call.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .planner import resolve
from .precision import autocast_off


def network_product(
    x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None, plan: str
) -> Tensor:
    """x (T, N), cores (r, m, n, s), weight (M, N), bias (M,) -> y (T, M) in the dtype of x; weight has no gradient."""
    if torch.compiler.is_compiling():
        return torch.ops.t3nsor.network_product(x, list(cores), weight, bias, plan)
    return _NetworkProduct.apply(x, weight, bias, plan, *cores)


def _product(x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None, plan: str) -> Tensor:
    with autocast_off(x.device.type):
        way = resolve(plan, x, cores, weight).product
        return way.product(x, cores, weight, None if bias is None else bias.to(x.dtype))


def _gradients(
    g: Tensor, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, plan: str, for_x: bool, for_cores: bool
) -> tuple[Tensor | None, list[Tensor] | None]:
    with autocast_off(x.device.type):
        chosen = resolve(plan, x, cores, weight)
        if for_x and for_cores and chosen.input_gradient == chosen.core_gradients:
            return chosen.input_gradient.gradients(x, g, cores, weight, True, True)
        for_input = chosen.input_gradient.gradients(x, g, cores, weight, True, False)[0] if for_x else None
        gradients = chosen.core_gradients.gradients(x, g, cores, weight, False, True)[1] if for_cores else None
        return for_input, gradients


def _save(ctx: Any, x: Tensor, cores: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None, plan: str) -> None:
    ctx.save_for_backward(x, weight, *cores)
    ctx.plan, ctx.bias_dtype = plan, None if bias is None else bias.dtype


class _NetworkProduct(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: str, *cores: Tensor) -> Tensor:
        y = _product(x, cores, weight, bias, plan)
        return y.clone() if y._is_view() else y  # a view made in here could not be written to, as y of a linear can

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, bias, plan, *cores = inputs
        _save(ctx, x, cores, weight, bias, plan)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *cores = ctx.saved_tensors
        for_x, _, for_bias, _, *for_cores = ctx.needs_input_grad
        for_input, gradients = _gradients(g.contiguous(), x, cores, weight, ctx.plan, for_x, any(for_cores))
        for_each_core = gradients or [None] * len(cores)  # autograd drops those of frozen cores
        return for_input, None, _for_bias(ctx, g) if for_bias else None, None, *for_each_core


def _for_bias(ctx: Any, g: Tensor) -> Tensor:
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
    for_input, gradients = _gradients(g, x, cores, weight, plan, for_x, for_cores)
    return [t.contiguous() for t in ([for_input] if for_x else []) + (gradients or [])]


@_gradients_operator.register_fake
def _(g, x, cores, weight, plan, for_x, for_cores):
    made = [torch.empty_like(x, memory_format=torch.contiguous_format)] if for_x else []
    return made + [torch.empty_like(c, memory_format=torch.contiguous_format) for c in cores if for_cores]


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _save(ctx, *inputs)


def _backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, weight, *cores = ctx.saved_tensors
    for_x, for_cores, _, for_bias, _ = ctx.needs_input_grad
    made: list[Tensor] = []
    if for_x or any(for_cores):
        wanted = for_x, any(for_cores)
        made = list(torch.ops.t3nsor.network_product_gradients(g.contiguous(), x, cores, weight, ctx.plan, *wanted))
    for_input = made.pop(0) if for_x else None
    for_each_core = made or [None] * len(cores)
    return for_input, for_each_core, None, _for_bias(ctx, g) if for_bias else None, None


_product_operator.register_autograd(_backward, setup_context=_setup_context)
