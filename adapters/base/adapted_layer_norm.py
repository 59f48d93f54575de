"""A frozen layer norm with adapters: one that takes its place, and vectors that are added to its output."""

from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.architectures import NORM_CLASSES
from adapters.base.mergeable import Mergeable
from adapters.base.places import Place


class AdaptedLayerNorm(Mergeable, *NORM_CLASSES):
    """A layer norm plus adapters; built from an existing norm, whose weight (dim,) it takes over.

    replacement    scale_norm, tt_layer_norm: a norm that acts in its place
    shift          bitfit: a vector (dim,) added to its output
    """

    def __init__(self, norm: nn.Module) -> None:
        nn.Module.__init__(self)
        self.norm_class = type(norm)
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon
        self.register_parameter("bias", None)
        self.replacement = nn.ModuleDict()
        self.shift = nn.ModuleDict()
        self.train(norm.training)

    def plain(self) -> nn.Module:
        norm = self.norm_class(len(self.weight), self.variance_epsilon)
        norm.weight = self.weight
        return norm

    @classmethod
    def base_at(cls, model: nn.Module, path: str, config: Any) -> nn.Module:
        base = super().base_at(model, path, config)
        if type(base) not in (*NORM_CLASSES, cls):
            known = " or ".join(norm_class.__name__ for norm_class in NORM_CLASSES)
            given = f"a {type(base).__name__} at {path}"
            config.refuse("kind", f"adapts layer norms of the class {known}", given, "leave its sublayer out")
        return base

    @classmethod
    def _build(cls, base: nn.Module, weight: Tensor, config: Any, place: Place) -> nn.Module:
        if place.slot == "replacement":
            return config.build(weight, base.variance_epsilon)
        return config.build_at(place, len(weight), len(weight))

    def initialize_adapter(self, adapter: nn.Module) -> None:
        if any(adapter in controller.tasks.values() for controller in self.shift.values()):
            adapter.reset_parameters()
        else:
            adapter.start_from(self.base_tensor("weight"))

    def active_adapter(self) -> nn.Module | None:
        """The norm that acts in place of the base's, or None."""
        return next((c.active for c in self.replacement.values() if c.active is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_merged:
            y = self.norm_class.forward(self, x)
            return y if self.bias is None else y + self.bias
        adapter = self.active_adapter()
        y = self.norm_class.forward(self, x) if adapter is None else adapter(x)
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            y = y.to(self.weight.dtype)  # as T5's own norm does, whose x may be float32: transformers keeps wo there
        for controller in self.shift.values():
            if controller.active is not None:
                y = y + controller(x).to(y.dtype)  # (..., dim) + (dim,)
        return y

    @torch.no_grad()
    def merged_weights(self) -> dict[str, Tensor]:
        """The active replacement's weight vector (dim,), and the sum (dim,) of the active shifts, if there are any."""
        dtype, adapter, merged = self.base_tensor("weight").dtype, self.active_adapter(), {}
        if adapter is not None:
            merged["weight"] = adapter.dense_weight().to(dtype).contiguous()
        shifts = [c.active.delta_bias() for c in self.shift.values() if c.active is not None]
        if shifts:
            merged["bias"] = torch.stack(shifts).sum(0).to(dtype)
        return merged
