"""A linear of the base with one TT delta for each PEFT adapter.

    y = W x + b + sum over the active and the merged adapters of s (T x + c)        x (..., in) -> y (..., out)

    base_layer       the linear as it was: W (out, in) and b (out,), frozen; a Conv1D stores W transposed
    tt_lora_delta    {adapter name: TensorTrainDelta}, float32 for any dtype of the base

While some are merged, the base layer holds W + sum of s T and b + sum of s c of these, and the other active ones act
beside it; unmerging puts the kept W and b back (``adapters.base.kept_base``), so it is exact in every dtype.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters.base.hooks import is_hooked
from adapters.base.kept_base import check_finite
from adapters.base.linear_delta import add_deltas, linear_with_deltas, start_from_weight
from adapters.base.linear_layers import as_out_in, features, is_plain_linear
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.host import TensorTrainPeftHost, start_as_configured
from adapters.peft.row_adapters import add_deltas_by_row


class TensorTrainPeftLinear(TensorTrainPeftHost):
    """The layer in place of an ``nn.Linear`` or a ``Conv1D`` in a model that PEFT has adapted.

    Args:
        path: of the base layer in the model, which patterns of the configuration match.
    """

    def __init__(
        self, base_layer: nn.Linear | Conv1D, adapter_name: str, config: TensorTrainConfig, path: str = ""
    ) -> None:
        super().__init__(base_layer, adapter_name)
        self.update_layer(adapter_name, config, path)

    def update_layer(self, adapter_name: str, config: TensorTrainConfig, path: str = "") -> None:
        """Add the delta of one adapter, on the base's device."""
        with torch.device(self.device):
            delta = config.to_adapter_config().build_at_path(path, *features(self.base_layer))
            start_as_configured(delta, config)
        if not next(delta.parameters()).is_meta:
            start_from_weight(delta, lambda: as_out_in(self.base_layer, self.base_tensor("weight")), path)
        self.tt_lora_delta[adapter_name] = delta.train(self.training)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @property
    def in_features(self) -> int:
        return features(self.base_layer)[0]

    @property
    def out_features(self) -> int:
        return features(self.base_layer)[1]

    def deltas_at(self, path: str, adapter_name: str) -> dict[str, nn.Module]:
        return {path: self.tt_lora_delta[adapter_name]}

    def changed_parameters(self, adapter_names: Sequence[str]) -> Iterator[nn.Parameter]:
        weight = getattr(self.base_layer, "weight", None)  # a quantised one may be in buffers
        if weight is not None and not self.tt_lora_delta.keys().isdisjoint(adapter_names):
            yield weight

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """s T of one adapter in the shape of the base's weight; ValueError for one with a core activation."""
        return as_out_in(self.base_layer, self.tt_lora_delta[adapter_name].delta_weight())

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether PEFT's ``convert_to_lora`` can convert the delta: a matrix alone, without an activation or a bias."""
        if adapter_name not in self.tt_lora_delta:
            return False
        delta = self.tt_lora_delta[adapter_name]
        return delta.is_linear and delta.delta_bias() is None

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
            merged["bias"] = sum(shifts, start).to((weight if bias is None else bias).dtype)
        if safe_merge:
            check_finite(merged.values(), f"for the adapters {list(names)}")
        return merged

    def adds_missing_bias(self, adapter_name: str) -> bool:
        return self.base_tensor("bias") is None and self.tt_lora_delta[adapter_name].delta_bias() is not None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters:
            self.unmerge()
        elif self.row_adapters is not None:
            y = self.base_output(x, *args, **kwargs)
            return add_deltas_by_row(y, x, self.tt_lora_delta, self.row_adapters.of(x))
        deltas = [self.tt_lora_delta[name] for name in self.acting]
        base = self.base_layer
        if args or kwargs or not self._is_plain() or not any(delta.fuses for delta in deltas):
            return add_deltas(self.base_output(x, *args, **kwargs), x, deltas)
        return linear_with_deltas(x, as_out_in(base, base.weight), base.bias, deltas)

    def base_output(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Call the base layer: x (..., in) -> (..., out)."""
        return self.base_layer(x, *args, **kwargs)

    def _is_plain(self) -> bool:
        """Whether the base computes W x + b with a W that can be read, and nothing else: it has no hooks."""
        return is_plain_linear(self.base_layer) and not is_hooked(self.base_layer)
