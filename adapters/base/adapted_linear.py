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
from transformers.pytorch_utils import Conv1D

from adapters.base.kept_base import MergeError
from adapters.base.linear_delta import add_deltas, linear_with_deltas, start_from_weight
from adapters.base.linear_layers import as_out_in, describe, features, how_to_fix, is_dense, is_plain_linear
from adapters.base.mergeable import Mergeable
from adapters.base.places import Place
from adapters.base.weight_readers import weight_reader


class AdaptedMap(Mergeable):
    """Mixin for a linear of one class plus adapters; built from an existing one, whose Parameters it takes over."""

    linear_class: type[nn.Module]
    sizes: tuple[str, str]
    """Names of the attributes that hold the in and out features."""

    def __init__(self, linear: nn.Module) -> None:
        nn.Module.__init__(self)
        for name in self.sizes:
            setattr(self, name, getattr(linear, name))
        self.weight, self.bias = linear.weight, linear.bias
        self.around = nn.ModuleDict()
        self.beside = nn.ModuleDict()
        self.after = nn.ModuleDict()
        self.train(linear.training)

    def plain(self) -> nn.Module:
        linear = self.linear_class.__new__(self.linear_class)
        nn.Module.__init__(linear)
        for name in self.sizes:
            setattr(linear, name, getattr(self, name))
        linear.weight, linear.bias = self.weight, self.bias
        return linear

    @classmethod
    def host_of(cls, base: nn.Module) -> "AdaptedMap":
        return HOSTS[type(base)](base)

    @classmethod
    def base_at(cls, model: nn.Module, path: str, config: Any) -> nn.Module:
        base = super().base_at(model, path, config)
        if (reader := weight_reader(model, path)) is not None:
            reads, fix = reader
            config.refuse("kind", "adapts linears that their parents call", f"{path}, whose weight {reads}", fix)
        if not isinstance(base, cls) and not is_plain_linear(base):
            rule, given = "adapts dense modules of the class nn.Linear or Conv1D", f"{describe(base)} at {path}"
            config.refuse("kind", rule, given, how_to_fix(base, "use the PEFT tuner, adapters.peft"))
        return base

    @classmethod
    def _build(cls, base: nn.Module, weight: Tensor, config: Any, place: Place) -> nn.Module:
        in_features, out_features = features(base)
        if place.slot == "after":
            return config.build_at(place, out_features, out_features)
        delta = config.build_at(place, in_features, out_features)
        start_from_weight(delta, lambda: as_out_in(base, weight), place.path)
        return delta

    def initialize_adapter(self, adapter: nn.Module) -> None:
        if hasattr(adapter, "start_from"):
            adapter.start_from(as_out_in(self, self.base_tensor("weight")))
        else:
            adapter.reset_parameters()

    def active_around(self) -> nn.Module | None:
        """The adapter that takes the place of W x + b, or None."""
        return next((c.active for c in self.around.values() if c.active is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        weight = as_out_in(self, self.weight)
        if self.is_merged:
            return F.linear(x, weight, self.bias)  # (..., in) -> (..., out)
        deltas = [controller.active for controller in self.beside.values() if controller.active is not None]
        if (around := self.active_around()) is None:
            y = linear_with_deltas(x, weight, self.bias, deltas)
        else:
            y = add_deltas(around(x, weight, self.bias), x, deltas)
        for controller in self.after.values():
            if controller.active is not None:
                y = controller(y)
        return y

    @torch.no_grad()
    def merged_weights(self) -> dict[str, Tensor]:
        """Weight and bias (out,) of the whole map, summed in float32 at least, cast once to the base's dtype.

        The weight is stored as the base stores it. A tensor that no adapter changes is left out, as it may be tied to
        another one, like T5's lm_head.

        Raises:
            MergeError: the weight has been quantised since.
        """
        if not is_dense(self.weight):
            raise MergeError(
                f"A merged weight is dense; got a {type(self.weight).__name__}, quantised after the adapters had been "
                "attached: merge first."
            )
        weight, bias = self.base_tensor("weight"), self.base_tensor("bias")
        dtype = torch.promote_types(weight.dtype, torch.float32)
        total = as_out_in(self, weight).to(dtype)  # (out, in)
        shift = torch.zeros(len(total), dtype=dtype, device=weight.device)
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
        merged = {"weight": as_out_in(self, total), "bias": shift}
        return {name: merged[name].to(weight.dtype).contiguous() for name in sorted(changed)}


class AdaptedLinear(AdaptedMap, nn.Linear):
    """nn.Linear plus adapters."""

    linear_class = nn.Linear
    sizes = ("in_features", "out_features")


class AdaptedConv1D(AdaptedMap, Conv1D):
    """Conv1D, GPT-2's linear with a weight (in, out), plus adapters."""

    linear_class = Conv1D
    sizes = ("nx", "nf")


HOSTS: dict[type[nn.Module], type[AdaptedMap]] = {host.linear_class: host for host in (AdaptedLinear, AdaptedConv1D)}
"""The class of adapted linears by the class of the base's."""
