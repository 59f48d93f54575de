"""A frozen linear with adapters around, beside and after it.

    y = around(x; W, b) + sum of beside(x)          then, one after another,    y = after(y)

    x (..., in)    W (out, in) and b (out,) frozen, under the same names and in the same storage as before
    around         peft:<TYPE>: another map with W and b; by default W x + b
    beside         tt_lora, intrinsic_said: a change of y as a map of x;  bitfit: a change of b;  the first delta that
                   fuses is computed together with W
    after          bottleneck, tt_adapter, tt_single: map y to the adapted y, at the last linear of a sublayer

While merged (see ``adapters.base.kept_base``), W and b hold the dense weights of the whole map.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.base.linear_delta import add_deltas, linear_with_deltas, start_from_weight
from adapters.base.linear_layers import features
from adapters.base.mergeable import Mergeable
from adapters.base.places import Place
from adapters.base.weight_readers import weight_reader


class AdaptedLinear(Mergeable, nn.Linear):
    """nn.Linear plus adapters; built from an existing linear, whose Parameters it takes over."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.around = nn.ModuleDict()
        self.beside = nn.ModuleDict()
        self.after = nn.ModuleDict()
        self.train(linear.training)

    def plain(self) -> nn.Linear:
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        linear.weight, linear.bias = self.weight, self.bias
        return linear

    @classmethod
    def base_at(cls, model: nn.Module, path: str, config: Any) -> nn.Module:
        base = super().base_at(model, path, config)
        if (reader := weight_reader(model, path)) is not None:
            reads, fix = reader
            config.refuse("kind", "adapts linears that their parents call", f"{path}, whose weight {reads}", fix)
        if type(base) not in (nn.Linear, cls):
            given = f"a {type(base).__name__} at {path}"
            config.refuse("kind", "adapts plain nn.Linear modules", given, "load the model without quantisation")
        return base

    @classmethod
    def _build(cls, base: nn.Module, weight: Tensor, config: Any, place: Place) -> nn.Module:
        in_features, out_features = features(base)
        if place.slot == "after":
            return config.build_at(place, out_features, out_features)
        delta = config.build_at(place, in_features, out_features)
        start_from_weight(delta, weight, place.path)
        return delta

    def initialize_adapter(self, adapter: nn.Module) -> None:
        if hasattr(adapter, "start_from"):
            adapter.start_from(self.base_tensor("weight"))
        else:
            adapter.reset_parameters()

    def active_around(self) -> nn.Module | None:
        """The adapter that takes the place of W x + b, or None."""
        return next((c.active for c in self.around.values() if c.active is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_merged:
            return F.linear(x, self.weight, self.bias)  # (..., in) -> (..., out)
        deltas = [controller.active for controller in self.beside.values() if controller.active is not None]
        if (around := self.active_around()) is None:
            y = linear_with_deltas(x, self.weight, self.bias, deltas)
        else:
            y = add_deltas(around(x, self.weight, self.bias), x, deltas)
        for controller in self.after.values():
            if controller.active is not None:
                y = controller(y)
        return y

    @torch.no_grad()
    def merged_weights(self) -> dict[str, Tensor]:
        """Weight (out, in) and bias (out,) of the whole map, summed in float32 at least, cast once to the base's dtype.

        A tensor that no adapter changes is left out, as it may be tied to another one, like T5's lm_head.
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
