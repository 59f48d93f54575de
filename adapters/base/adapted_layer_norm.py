"""A layer norm with adapters: one that acts in its place, vectors that are added to what it gives."""

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters.base.mergeable import Mergeable


class AdaptedLayerNorm(Mergeable, T5LayerNorm):
    """T5's layer norm with adapters: its own weight stays, frozen.

    replacement    scale_norm, tt_layer_norm: a norm that acts in its place
    shift          bitfit: a vector (dim,) added to what the norm gives
    """

    def __init__(self, norm: T5LayerNorm) -> None:
        nn.Module.__init__(self)
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon
        self.register_parameter("bias", None)
        self.replacement = nn.ModuleDict()
        self.shift = nn.ModuleDict()
        self.train(norm.training)

    def start(self, adapter: nn.Module) -> None:
        if any(adapter in controller.tasks.values() for controller in self.shift.values()):
            adapter.reset_parameters()
        else:
            adapter.start_from(self.base_tensor("weight"))

    def active_adapter(self) -> nn.Module | None:
        """The norm that acts in place of the base's, or None."""
        return next((c.active for c in self.replacement.values() if c.active is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_merged:
            y = super().forward(x)
            return y if self.bias is None else y + self.bias
        adapter = self.active_adapter()
        y = super().forward(x) if adapter is None else adapter(x)
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
