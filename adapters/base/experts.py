"""Stacks of expert weights, and one delta for each expert of a stack.

    transformers 5 stores the linears of all experts of a layer in one Parameter       y = W_e x
    gate_up_proj, down_proj     (experts, out, in)      Mixtral, Qwen3-MoE and most others
                                (experts, in, out)      gpt-oss: ``is_transposed`` of the module

The module that holds the stacks has a class with transformers' ``use_experts_implementation``, which says how it stores
them and lets it compute in several ways; ``adapters.base.expert_weights`` adds the deltas in all that are supported.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from adapters.base.linear_delta import LinearDelta

ATTRIBUTE = "experts"
"""The attribute of a ``DeltaPerExpert`` that holds the deltas."""
LAYOUT = ("is_transposed", "num_experts", "_apply_gate")
"""What transformers' interface gives a module with stacks."""


class DeltaPerExpert(nn.Module):
    """The deltas of the experts of one stack; that of expert e acts on the tokens that are routed to e.

    Args:
        deltas: that of expert 0, 1, ...
    """

    def __init__(self, deltas: Iterable[LinearDelta]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(deltas)

    @property
    def is_linear(self) -> bool:
        return all(delta.is_linear for delta in self.experts)


def reason_against(module: nn.Module, name: str) -> str | None:
    """Why the Parameter ``name`` of a module cannot have a delta per expert; None if it can."""
    if is_parametrized(module, name):
        return "which is computed from another Parameter, as quantised weights are"
    parameter = module.get_parameter(name)
    if parameter.dim() != 3:
        return f"of shape {tuple(parameter.shape)}"
    if not all(hasattr(module, attribute) for attribute in LAYOUT):
        return f"of a {type(module).__name__}, which does not use transformers' experts interface"
    if module._is_expert_parallel:
        return "whose experts are distributed over processes"
    if type(parameter.data) is not Tensor or parameter.dtype not in (
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ):
        return f"of dtype {parameter.dtype}, stored as a {type(parameter.data).__name__}, as quantised weights are"
    return None


def stack_sizes(module: nn.Module, name: str) -> tuple[int, int, int]:
    """(experts, in, out) of the stack ``name``."""
    experts, out_features, in_features = as_out_in(module, module.get_parameter(name)).shape
    return experts, in_features, out_features


def as_out_in(module: nn.Module, weight: Tensor) -> Tensor:
    """W (..., out, in) from the weights as ``module`` stores them, or the other way round."""
    return weight.mT if module.is_transposed else weight
