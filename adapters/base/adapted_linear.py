"""A frozen linear with adapters: the place where every linear change of the model happens.

    y = around(x; W, b) + sum of beside(x)          then, one after another,    y = after(y)

    x (..., in)    W (out, in) and b (out,) frozen, under the same names and in the same storage as before
    around         peft:<TYPE>: a map of its own from W and b; W x + b where there is none
    beside         tt_lora, intrinsic_said: map x to a change of y;  bitfit: a change of b;  the first that can is
                   computed together with W (``onto``)
    after          bottleneck, tt_adapter, tt_single: map y to the adapted y, at the last linear of a sublayer

Merged (see ``adapters.base.mergeable``), W and b hold the dense weights of the whole map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.base.linear_delta import with_deltas
from adapters.base.mergeable import Mergeable


class AdaptedLinear(Mergeable, nn.Linear):
    """nn.Linear plus adapters; made from an existing linear, whose Parameters it takes over."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.around = nn.ModuleDict()
        self.beside = nn.ModuleDict()
        self.after = nn.ModuleDict()
        self.train(linear.training)

    def start(self, adapter: nn.Module) -> None:
        if hasattr(adapter, "start_from"):
            adapter.start_from(self.base_tensor("weight"))
        else:
            adapter.reset_parameters()

    def active_around(self) -> nn.Module | None:
        """The adapter that computes with the base's weight in its own way, or None."""
        return next((c.active for c in self.around.values() if c.active is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_merged:
            return F.linear(x, self.weight, self.bias)  # (..., in) -> (..., out)
        deltas = [controller.active for controller in self.beside.values() if controller.active is not None]
        if (around := self.active_around()) is None:
            y = with_deltas(lambda x: F.linear(x, self.weight, self.bias), x, deltas, self.weight, self.bias)
        else:
            y = with_deltas(lambda x: around(x, self.weight, self.bias), x, deltas)
        for controller in self.after.values():
            if controller.active is not None:
                y = controller(y)
        return y

    @torch.no_grad()
    def merged_weights(self) -> dict[str, Tensor]:
        """Weight (out, in) and bias (out,) of the whole map, summed in float32 at least, cast once to the base's.

        One that no adapter changes is left out: the weight of T5's lm_head is its embedding's too.
        """
        weight, bias = self.base_tensor("weight"), self.base_tensor("bias")
        dtype = torch.promote_types(weight.dtype, torch.float32)
        total, shift = weight.to(dtype), torch.zeros(self.out_features, dtype=dtype, device=weight.device)
        if bias is not None:
            shift = bias.to(dtype)
        has_bias, changed = bias is not None, set()

        if (around := self.active_around()) is not None:
            total, change = around.dense(total, shift if has_bias else None)
            shift = shift if change is None else change
            changed |= {"weight", "bias"} if has_bias else {"weight"}

        for controller in self.beside.values():
            if controller.active is not None:
                if (added := controller.active.added_to(total)) is not None:
                    total = added
                    changed.add("weight")
                if (change := controller.active.delta_bias()) is not None:
                    shift, has_bias = shift + change, True
                    changed.add("bias")
        for controller in self.after.values():
            if controller.active is not None:
                change = controller.active.delta_weight().to(dtype)
                with torch.autocast(weight.device.type, enabled=False):
                    total = total + change @ total  # (out, out) x (out, in) -> (out, in)
                    shift = shift + change @ shift  # (out, out) x (out,) -> (out,)
                if (change := controller.active.delta_bias()) is not None:
                    shift, has_bias = shift + change, True
                changed |= {"weight", "bias"} if has_bias else {"weight"}
        merged = {"weight": total, "bias": shift}
        return {name: merged[name].to(weight.dtype) for name in sorted(changed)}
