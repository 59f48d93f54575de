"""A frozen linear with adapters: the place where every linear change of the model happens.

    y = W x + b + sum of beside(x)          then, one after another,    y = after(y)

    x (..., in)    W (out, in) and b (out,) frozen, under the same names and in the same storage as before
    beside         tt_lora: maps x to a change of y
    after          bottleneck, tt_adapter, tt_single: map y to the adapted y, at the last linear of a sublayer

Merged (see ``adapters.mergeable``), W and b hold the dense weights of the whole map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.mergeable import Mergeable


class AdaptedLinear(Mergeable, nn.Linear):
    """nn.Linear plus adapters; made from an existing linear, whose Parameters it takes over."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.beside = nn.ModuleDict()
        self.after = nn.ModuleDict()
        self.train(linear.training)

    def start(self, adapter: nn.Module) -> None:
        adapter.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)  # (..., in) -> (..., out)
        if self.is_merged:
            return y
        for controller in self.beside.values():
            if controller.active is not None:
                y = y + controller(x)
        for controller in self.after.values():
            if controller.active is not None:
                y = controller(y)
        return y

    @torch.no_grad()
    def merged_weights(self) -> dict[str, Tensor | None]:
        """Weight (out, in) and bias (out,) of the whole map, summed in float32 at least, cast once to the base's."""
        weight, bias = self.base_tensor("weight"), self.base_tensor("bias")
        dtype = torch.promote_types(weight.dtype, torch.float32)
        total, shift = weight.to(dtype), torch.zeros(self.out_features, dtype=dtype, device=weight.device)
        if bias is not None:
            shift = bias.to(dtype)
        has_bias = bias is not None

        for controller in self.beside.values():
            if controller.active is not None:
                total = total + controller.active.delta_weight()
                if (change := controller.active.delta_bias()) is not None:
                    shift, has_bias = shift + change, True
        for controller in self.after.values():
            if controller.active is not None:
                change = controller.active.delta_weight().to(dtype)
                with torch.autocast(weight.device.type, enabled=False):
                    total = total + change @ total  # (out, out) x (out, in) -> (out, in)
                    shift = shift + change @ shift  # (out, out) x (out,) -> (out,)
                if (change := controller.active.delta_bias()) is not None:
                    shift, has_bias = shift + change, True
        return {"weight": total.to(weight.dtype), "bias": shift.to(weight.dtype) if has_bias else None}
