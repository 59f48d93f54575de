"""Stand-ins for stacks of expert weights while an experts module computes: products with them include the deltas.

    implementation     product of the module with its stack                     the delta of expert e acts on
    "eager"            F.linear(x, W[e]), or x @ W[e] if it is transposed       x (tokens of e, in)
    "grouped_mm"       grouped_mm(x, W, offs), x (S, in) sorted by expert       the rows of x between two offs
    "batched_mm"       bmm(x, W[ids]) or bmm(W[ids], x), a row for each id      the rows of x with ids == e

Each product calls the same function with the weights of the base and adds T_e x for the experts that have tokens, so a
delta of zero leaves every bit as it was, and no delta is ever a dense matrix. Routing, gates, biases and activations
are the module's own. torch calls ``__torch_function__`` of an argument that has it
(https://docs.pytorch.org/docs/stable/notes/extending.html#extending-torch-with-a-tensor-like-type), which makes this
independent of the class of the module; what a class or a kernel does besides with its stacks is refused by name.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from adapters.base.experts import DeltaPerExpert
from adapters.validation import ConfigurationError

IMPLEMENTATIONS = (None, "eager", "grouped_mm", "batched_mm")
"""Values of ``config._experts_implementation``; None is a module outside of a model, which is eager."""
FORWARDED = {"device", "dtype", "shape", "dim", "ndim", "size", "data_ptr"}
"""Attributes of the base's weights that a computation may read."""


class ExpertWeights:
    """Stands for weights W_e of experts, with deltas.

    Args:
        weight: of the base: the whole stack (experts, ., .), rows of it (B, ., .), or the weight of one expert.
        deltas: those of each adapter that acts.
        is_transposed: whether the last two axes are (in, out) instead of (out, in).
        experts: the expert of each entry of the first axis, (B,), or that of the only one, (); None for all in order.
    """

    def __init__(
        self, weight: Tensor, deltas: Sequence[DeltaPerExpert], is_transposed: bool, experts: Tensor | None = None
    ) -> None:
        self.weight = weight
        self.deltas = deltas
        self.is_transposed = is_transposed
        self.experts = experts

    def __getitem__(self, index: Tensor) -> "ExpertWeights":
        """The weight of one expert, index (), or a row for each of several, index (B,)."""
        if self.experts is not None or not isinstance(index, Tensor) or index.dim() > 1:
            refuse_computation(f"indexes them by {index!r}")
        return ExpertWeights(self.weight[index], self.deltas, self.is_transposed, index)

    def transpose(self, first: int, second: int) -> "ExpertWeights":
        if {first % self.weight.dim(), second % self.weight.dim()} != {self.weight.dim() - 2, self.weight.dim() - 1}:
            refuse_computation("moves the axis of the experts")
        return ExpertWeights(self.weight.transpose(first, second), self.deltas, not self.is_transposed, self.experts)

    def __getattr__(self, name: str) -> Any:
        if name in FORWARDED:
            return getattr(self.weight, name)
        if name.startswith("__"):
            raise AttributeError(name)
        refuse_computation(f"reads {name!r} of them")

    @classmethod
    def __torch_function__(cls, function: Callable, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Tensor:
        name = getattr(function, "__name__", str(function))
        product = PRODUCTS.get(name)
        if product is None:
            refuse_computation(f"calls {name} with them")
        return product(function, *args, **(kwargs or {}))

    def of_one(self, x: Tensor) -> Tensor:
        """The deltas of the only expert, of x (tokens, in) -> (tokens, out)."""
        return sum(delta.experts[int(self.experts)](x) for delta in self.deltas)

    def added_to(self, y: Tensor, x: Tensor, order: Tensor, counts: Sequence[int]) -> Tensor:
        """y (S, ..., out) with the deltas of x (S, ..., in) added.

        Args:
            order: rows of x by expert, (R,), without repetitions; the others have no delta.
            counts: how many of them each expert has, with the sum R.
        """
        pieces = x[order].split(list(counts))
        changes = [
            sum(delta.experts[e](piece) for delta in self.deltas).to(y.dtype)
            for e, piece in enumerate(pieces)
            if len(piece)
        ]
        return y.index_add(0, order, torch.cat(changes)) if changes else y


def _linear(function: Callable, x: Tensor, weights: ExpertWeights, bias: Tensor | None = None) -> Tensor:
    """x (tokens, in), W_e (out, in) -> (tokens, out)."""
    _check_axes(weights, transposed=False, one=True)
    y = function(x, weights.weight, bias)
    return y + weights.of_one(x).to(y.dtype)


def _matmul(function: Callable, x: Tensor, weights: ExpertWeights) -> Tensor:
    """x (tokens, in), W_e (in, out) -> (tokens, out)."""
    _check_axes(weights, transposed=True, one=True)
    y = function(x, weights.weight)
    return y + weights.of_one(x).to(y.dtype)


def _grouped_mm(function: Callable, x: Tensor, weights: ExpertWeights, offs: Tensor, **options: Any) -> Tensor:
    """x (S, in) sorted by expert, W (experts, in, out), offs (experts,) the end of each -> (S, out)."""
    _check_axes(weights, transposed=True)
    y, ends = function(x, weights.weight, offs=offs, **options), offs.tolist()
    counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return weights.added_to(y, x, torch.arange(ends[-1], device=x.device), counts)


def _bmm(function: Callable, first: Any, second: Any) -> Tensor:
    """x (B, t, in), W (B, in, out) -> (B, t, out); or W (B, out, in), x (B, in, t) -> (B, out, t)."""
    x_first = isinstance(second, ExpertWeights)
    weights, x = (second, first) if x_first else (first, second.mT)
    _check_axes(weights, transposed=x_first)
    y = function(first, weights.weight) if x_first else function(weights.weight, second).mT
    number = len(weights.deltas[0].experts)
    experts = torch.arange(number, device=x.device) if weights.experts is None else weights.experts
    counts = experts.bincount(minlength=number).tolist()
    y = weights.added_to(y, x, experts.argsort(stable=True), counts)
    return y if x_first else y.mT


PRODUCTS: dict[str, Callable[..., Tensor]] = {
    "linear": _linear,
    "matmul": _matmul,
    "__matmul__": _matmul,
    "bmm": _bmm,
    "grouped_mm": _grouped_mm,
    "_grouped_mm": _grouped_mm,
    "transformers.grouped_mm_fallback": _grouped_mm,
}
"""The products that add deltas, by the name of the function; the last is transformers' own, for older torch."""


def _check_axes(weights: Any, transposed: bool, one: bool = False) -> None:
    """Check that the weights stand on their side of a product, and for one expert or several."""
    if not isinstance(weights, ExpertWeights) or weights.is_transposed != transposed:
        refuse_computation("multiplies by them from the other side")
    if (weights.weight.dim() == 2) != one:
        refuse_computation("multiplies by another number of them")


def refuse_computation(what: str) -> NoReturn:
    """Raise the error of a computation that deltas per expert cannot be added to."""
    raise ConfigurationError(
        "Deltas of experts act in the implementations 'eager', 'grouped_mm' and 'batched_mm' of transformers' experts, "
        f"by products with their weights; got one that {what}: call model.set_experts_implementation('eager'), or "
        "leave these target_parameters out."
    )
