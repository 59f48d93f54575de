"""A layer of PEFT as an adapter: it computes, while the model's own module keeps the weight.

    linear        y = PEFT layer(x; W, b)          x (..., in) -> y (..., out),  W (out, in), b (out,) or None
    layer norm    y = PEFT layer(x)                x (..., dim) -> y (..., dim), with its own weight vector (dim,)

In PEFT a layer owns the module that it wraps, and merges by adding its delta to the weight and subtracting it again,
which drifts. Here it owns none: W and b are passed to it in each forward, and a copy of it merges into copies of W and
b. So the base's parameters keep their names and every bit of their values.
"""

import copy

import torch
from torch import Tensor, nn

PEFT_NAME = "default"
"""PEFT's name of the only adapter in each of these layers."""


class PeftAdapter(nn.Module):
    """A layer of PEFT without the module that it wraps.

    ``not_linear_because`` is the reason why it has no dense weight, or None.
    """

    not_linear_because: str | None = None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        base = layer.base_layer
        del layer.base_layer
        layer.__dict__["base_layer"] = base  # visible to the layer, but not a submodule: neither counted nor saved
        self.layer = layer
        self.frozen = [parameter for parameter in layer.parameters() if not parameter.requires_grad]

    @property
    def is_linear(self) -> bool:
        return self.not_linear_because is None

    def release_base(self) -> None:
        """Drop the references to the weights that the layer was built from."""
        self.layer.base_layer.weight = self.layer.base_layer.bias = None

    def frozen_parameters(self) -> dict[nn.Parameter, str]:
        """The parameters that PEFT's method freezes, and why."""
        return dict.fromkeys(self.frozen, "frozen by the method of PEFT")


class PeftLinearAdapter(PeftAdapter):
    """The map of an adapted linear, base included."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        base = self.layer.base_layer
        base._parameters.update(weight=weight, bias=bias)  # that of a Conv1D is a view and no Parameter
        return self.layer(x).to(x.dtype)

    @torch.no_grad()
    def dense(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight (out, in) and bias (out,) of the whole map, in the dtype of ``weight``."""
        base = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        base.weight = nn.Parameter(weight.clone(), requires_grad=False)
        base.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)
        layer = copy.deepcopy(self.layer, {id(self.layer.base_layer): base})
        with torch.autocast(weight.device.type, enabled=False):
            layer.merge()
        return base.weight.data, None if base.bias is None else base.bias.data

    def unmergeable_reason(self) -> str | None:
        """PEFT's reason why this layer has no dense weight, or None if it has one."""
        base = self.layer.base_layer
        try:
            self.dense(base.weight.detach(), None if base.bias is None else base.bias.detach())
        except (ValueError, NotImplementedError, AttributeError, RuntimeError) as error:
            return f"cannot be merged by PEFT ({str(error).rstrip('.')})"
        return None


class PeftNormAdapter(PeftAdapter):
    """A layer norm in place of the base's, with its own weight and bias."""

    is_whole_norm = True

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).to(x.dtype)

    def dense_weight(self) -> Tensor:
        """The weight vector, (dim,)."""
        return self.layer.ln_tuning_layers[PEFT_NAME].weight

    def dense_bias(self) -> Tensor:
        """The bias (dim,) of a norm with one."""
        return self.layer.ln_tuning_layers[PEFT_NAME].bias

    def unmergeable_reason(self) -> None:
        """None: it always has a weight vector."""
