"""A layer of PEFT as an adapter of ours: it computes, the model's own module keeps the weight.

    linear        y = PEFT layer(x; W, b)          x (..., in) -> y (..., out),  W (out, in), b (out,) or None
    layer norm    y = PEFT layer(x)                x (..., dim) -> y (..., dim), with a weight vector (dim,) of its own

A layer of PEFT owns the module that it wraps, adds its delta to it to merge, and subtracts it again, which drifts. Here
it owns none: W and b are lent to it for each forward, and merging is done by a copy of it on copies of W and b. So the
base's parameters keep their names, and every bit of their values.
"""

import copy

import torch
from torch import Tensor, nn

PEFT_NAME = "default"
"""PEFT keys the tensors of a layer by the name of an adapter; each layer here has one."""


class PeftAdapter(nn.Module):
    """What both have in common: the layer of PEFT, without the module that PEFT wrapped.

    ``not_linear_because`` says why it has no dense weight, or is None.
    """

    not_linear_because: str | None = None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        base = layer.base_layer
        del layer.base_layer
        layer.__dict__["base_layer"] = base  # seen by the layer, but no submodule: neither counted nor saved
        self.layer = layer
        self.fixed = [parameter for parameter in layer.parameters() if not parameter.requires_grad]

    @property
    def is_linear(self) -> bool:
        return self.not_linear_because is None

    def forget_base(self) -> None:
        """Let go of the weights that the layer was made from."""
        self.layer.base_layer.weight = self.layer.base_layer.bias = None

    def fixed_parameters(self) -> dict[nn.Parameter, str]:
        """Parameters that PEFT's method holds at their values, and why."""
        return dict.fromkeys(self.fixed, "held by the method of PEFT")


class PeftLinearAdapter(PeftAdapter):
    """The map of an adapted linear, base included."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        base = self.layer.base_layer
        base.weight, base.bias = weight, bias
        return self.layer(x).to(x.dtype)

    @torch.no_grad()
    def dense(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight (out, in) and bias (out,) of the whole map, in the dtype of the weight given."""
        base = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        base.weight = nn.Parameter(weight.clone(), requires_grad=False)
        base.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)
        layer = copy.deepcopy(self.layer, {id(self.layer.base_layer): base})
        with torch.autocast(weight.device.type, enabled=False):
            layer.merge()
        return base.weight.data, None if base.bias is None else base.bias.data

    def refusal_to_merge(self) -> str | None:
        """PEFT's reason why this layer has no dense weight, or None where it has one."""
        base = self.layer.base_layer
        try:
            self.dense(base.weight.detach(), None if base.bias is None else base.bias.detach())
        except (ValueError, NotImplementedError, AttributeError, RuntimeError) as error:
            return f"cannot be merged by PEFT ({str(error).rstrip('.')})"
        return None


class PeftNormAdapter(PeftAdapter):
    """A layer norm in place of the base's."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).to(x.dtype)

    def dense_weight(self) -> Tensor:
        """The weight vector, (dim,)."""
        return self.layer.ln_tuning_layers[PEFT_NAME].weight

    def refusal_to_merge(self) -> None:
        """None: it always has a weight vector."""
