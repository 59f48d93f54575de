"""A linear of the base with one TT delta for each PEFT adapter.

    y = W x + b + sum over the active adapters of s (T x + c)        x (..., in) -> y (..., out)

    base_layer       the linear as it was: W (out, in) and b (out,), frozen; a Conv1D keeps W transposed
    tt_lora_delta    {adapter name: TensorTrainDelta}, float32 whatever the base's dtype

Merged, the base layer holds W + sum of s T and b + sum of s c, and the untouched W and b are kept aside. Unmerging puts
them back instead of subtracting, so it is exact in every dtype.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters.base.hooks import is_hooked
from adapters.base.linear_delta import start_from_weight, with_deltas
from adapters.merging import MergeError, is_finite
from adapters.peft.base_layers import as_out_in, features
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.layer import TensorTrainPeftLayer
from t3nsor.module import TTModule


class TensorTrainPeftLinear(TensorTrainPeftLayer):
    """What stands in place of an ``nn.Linear`` or a ``Conv1D`` in a model that PEFT has adapted.

    Args:
        path: of the base layer in the model, which patterns of the configuration are about.
    """

    def __init__(
        self, base_layer: nn.Linear | Conv1D, adapter_name: str, config: TensorTrainConfig, path: str = ""
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters = []
        self.register_buffer("untouched_weight", None, persistent=False)
        self.register_buffer("untouched_bias", None, persistent=False)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, path)

    def update_layer(self, adapter_name: str, config: TensorTrainConfig, path: str = "") -> None:
        """Add the delta of one adapter, on the base's device."""
        sizes = features(self.base_layer)
        weight, _ = self._untouched()
        with torch.device(weight.device):
            delta = config.to_adapter_config().build_at_path(path, *sizes)
        if not next(delta.parameters()).is_meta:
            start_from_weight(delta, as_out_in(self.base_layer, weight), path)
        self.tt_lora_delta[adapter_name] = delta.train(self.training)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """s T of one adapter in the shape of the base's weight; ValueError where an activation is between its cores."""
        return as_out_in(self.base_layer, self.tt_lora_delta[adapter_name].delta_weight())

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write deltas into the base layer, summed in float32 at least and cast once to the base's dtype.

        Args:
            safe_merge: refuse a merged weight that is not finite.
            adapter_names: whose deltas, beside those that are merged already; None for the active adapters.

        Raises:
            MergeError: ``safe_merge`` found infinities or NaN. The layer is as it was.
            ValueError: a delta is not linear. The layer is as it was.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.tt_lora_delta]
        if not names:
            return
        merged = self.merged_tensors(names, safe_merge)
        self.untouched_weight, self.untouched_bias = self._untouched()
        self._hold(*merged)
        self.merged_adapters.extend(names)

    @torch.no_grad()
    def merged_tensors(self, names: Sequence[str], safe_merge: bool = False) -> tuple[Tensor, Tensor | None]:
        """What ``merge`` writes, weight as the base keeps it and bias (out,), for these adapters; raises as it does."""
        weight, bias = self._untouched()
        dtype = torch.promote_types(weight.dtype, torch.float32)
        deltas = [self.tt_lora_delta[name] for name in (*self.merged_adapters, *names)]
        total = as_out_in(self.base_layer, weight).to(dtype)  # (out, in)
        for delta in deltas:
            total = delta.added_to(total)
        merged_weight = as_out_in(self.base_layer, total).to(weight.dtype).contiguous()
        shifts = [shift for delta in deltas if (shift := delta.delta_bias()) is not None]
        merged_bias = bias
        if shifts:
            start = weight.new_zeros(len(total), dtype=dtype) if bias is None else bias.to(dtype)
            merged_bias = sum(shifts, start).to(weight.dtype)
        if safe_merge and not all(t is None or is_finite(t) for t in (merged_weight, merged_bias)):
            raise MergeError(
                f"A merged weight is finite; that of the adapters {names} has infinities or NaN: "
                "training diverged or the delta overflows this dtype, so lower the learning rate or load in bfloat16."
            )
        return merged_weight, merged_bias

    def shifts_a_linear_without_bias(self, adapter_name: str) -> bool:
        """Whether the delta of this adapter has a bias c and the base has no b."""
        return self._untouched()[1] is None and self.tt_lora_delta[adapter_name].delta_bias() is not None

    def unmerge(self) -> None:
        """Put the untouched weight and bias back; nothing happens where nothing is merged."""
        if self.merged:
            self._hold(*self._untouched())
            self.untouched_weight = self.untouched_bias = None
            self.merged_adapters.clear()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters:
            self.unmerge()
        acting = [] if self.disable_adapters or self.merged else self.active_adapters
        deltas = [self.tt_lora_delta[name] for name in acting if name in self.tt_lora_delta]
        if args or kwargs or not self._is_plain():
            return with_deltas(lambda x: self.base_layer(x, *args, **kwargs), x, deltas)
        weight = as_out_in(self.base_layer, self.base_layer.weight)  # (out, in)
        return with_deltas(self.base_layer, x, deltas, weight, self.base_layer.bias)

    def _is_plain(self) -> bool:
        """Whether the base is its weight and bias alone: no other class, and nobody looks at its calls."""
        return type(self.base_layer) in (nn.Linear, Conv1D) and not is_hooked(self.base_layer)

    def _untouched(self) -> tuple[Tensor, Tensor | None]:
        """Weight, as the base keeps it, and bias (out,) of the base, merged or not."""
        if self.merged:
            return self.untouched_weight, self.untouched_bias
        bias = self.base_layer.bias
        return self.base_layer.weight.data, None if bias is None else bias.data

    def _hold(self, weight: Tensor, bias: Tensor | None) -> None:
        """Let the base layer's Parameters hold these; a bias that the base lacks is made for the while."""
        self.base_layer.weight.data = weight
        if self.base_layer.bias is not None and bias is not None:
            self.base_layer.bias.data = bias
        else:
            self.base_layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        """PEFT calls this wherever it lets whole adapters train: frozen and disabled cores stay frozen."""
        for module in self.tt_lora_delta.modules():
            if isinstance(module, TTModule):
                module.freeze_cores()

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """PEFT calls this after loading onto the meta device; it would cast to the base's dtype too, and lose bits."""
        if adapter_name in self.tt_lora_delta:
            self.tt_lora_delta[adapter_name].to(device or self.base_layer.weight.device)
