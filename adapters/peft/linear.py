"""A linear of the base with one TT delta for each PEFT adapter.

    y = W x + b + sum over the active and the merged adapters of s (T x + c)        x (..., in) -> y (..., out)

    base_layer       the linear as it was: W (out, in) and b (out,), frozen; a Conv1D stores W transposed
    tt_lora_delta    {adapter name: TensorTrainDelta}, float32 for any dtype of the base

While some are merged, the base layer holds W + sum of s T and b + sum of s c of these, and the other active ones act
beside it; unmerging puts the kept W and b back (``adapters.base.kept_base``), so it is exact in every dtype.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters.base.hooks import is_hooked
from adapters.base.kept_base import KeptBase, check_finite
from adapters.base.linear_delta import add_deltas, linear_with_deltas, start_from_weight
from adapters.base.linear_layers import LINEAR_CLASSES, as_out_in, features
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.layer import TensorTrainPeftLayer
from t3nsor.module import TTModule


class TensorTrainPeftLinear(KeptBase, TensorTrainPeftLayer):
    """The layer in place of an ``nn.Linear`` or a ``Conv1D`` in a model that PEFT has adapted.

    Args:
        path: of the base layer in the model, which patterns of the configuration match.
    """

    def __init__(
        self, base_layer: nn.Linear | Conv1D, adapter_name: str, config: TensorTrainConfig, path: str = ""
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, path)

    def base_module(self) -> nn.Module:
        return self.base_layer

    def update_layer(self, adapter_name: str, config: TensorTrainConfig, path: str = "") -> None:
        """Add the delta of one adapter, on the base's device."""
        weight = self.base_tensor("weight")
        with torch.device(weight.device):
            delta = config.to_adapter_config().build_at_path(path, *features(self.base_layer))
            if not config.init_weights:
                delta.linear.zero_core = None
                delta.reset_parameters()
        if not next(delta.parameters()).is_meta:
            start_from_weight(delta, as_out_in(self.base_layer, weight), path)
        self.tt_lora_delta[adapter_name] = delta.train(self.training)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """s T of one adapter in the shape of the base's weight; ValueError for one with a core activation."""
        return as_out_in(self.base_layer, self.tt_lora_delta[adapter_name].delta_weight())

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write deltas into the base layer, summed in float32 at least and cast once to the base's dtype.

        Args:
            safe_merge: check that the merged weight is finite.
            adapter_names: the adapters whose deltas are merged, besides those already merged; None for the active
                adapters.

        Raises:
            MergeError: ``safe_merge`` found infinities or NaN. The layer is unchanged.
            ValueError: a delta is not linear. The layer is unchanged.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.tt_lora_delta]
        if names:
            self.replace_base(self.merged_tensors(names, safe_merge))
            self.merged_adapters.extend(names)

    @torch.no_grad()
    def merged_tensors(self, names: Sequence[str], safe_merge: bool = False) -> dict[str, Tensor | None]:
        """The weight, as the base stores it, and the bias (out,) that ``merge`` writes; raises as it does."""
        weight, bias = self.base_tensor("weight"), self.base_tensor("bias")
        dtype = torch.promote_types(weight.dtype, torch.float32)
        deltas = [self.tt_lora_delta[name] for name in (*self.merged_adapters, *names)]
        total = as_out_in(self.base_layer, weight).to(dtype)  # (out, in)
        for delta in deltas:
            total = delta.added_to(total)
        merged = {"weight": as_out_in(self.base_layer, total).to(weight.dtype).contiguous(), "bias": bias}
        if shifts := [shift for delta in deltas if (shift := delta.delta_bias()) is not None]:
            start = weight.new_zeros(len(total), dtype=dtype) if bias is None else bias.to(dtype)
            merged["bias"] = sum(shifts, start).to(weight.dtype)
        if safe_merge:
            check_finite(merged.values(), f"for the adapters {list(names)}")
        return merged

    def adds_missing_bias(self, adapter_name: str) -> bool:
        """Whether the delta of this adapter has a bias c and the base has no b."""
        return self.base_tensor("bias") is None and self.tt_lora_delta[adapter_name].delta_bias() is not None

    def unmerge(self) -> None:
        """Put the base's weight and bias back, if anything is merged."""
        self.restore_base()
        self.merged_adapters.clear()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters:
            self.unmerge()
        acting = [] if self.disable_adapters else self.active_adapters
        beside = [name for name in acting if name in self.tt_lora_delta and name not in self.merged_adapters]
        deltas = [self.tt_lora_delta[name] for name in beside]
        base = self.base_layer
        if args or kwargs or not self._is_plain() or not any(delta.fuses for delta in deltas):
            return add_deltas(base(x, *args, **kwargs), x, deltas)
        return linear_with_deltas(x, as_out_in(base, base.weight), base.bias, deltas)

    @property
    def acting(self) -> list[str]:
        names = [] if self.disable_adapters else self.active_adapters
        return [name for name in names if name in self.tt_lora_delta and name not in self.merged_adapters]

    def _is_plain(self) -> bool:
        """Whether the base computes W x + b and nothing else: no subclass, no hooks."""
        return type(self.base_layer) in LINEAR_CLASSES and not is_hooked(self.base_layer)

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        """Keep frozen and disabled cores frozen; PEFT calls this wherever it makes whole adapters trainable."""
        for module in self.tt_lora_delta.modules():
            if isinstance(module, TTModule):
                module.freeze_cores()

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move without casting, for PEFT's own would round the adapter to the base's dtype after a meta-device load."""
        if adapter_name in self.tt_lora_delta:
            self.tt_lora_delta[adapter_name].to(device or self.base_layer.weight.device)
