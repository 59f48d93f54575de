"""Quantised linears of the base with TT deltas beside them, by PEFT's backends of quantisation.

    y = Q x + b + sum of s (T x + c)            Q (out, in) is read by its own kernel only: no delta fuses with it

    backend                        forward and gradient    merge    tested here
    bitsandbytes 4-bit, 8-bit      yes                     yes      on the CPU
    torchao, int8 weights          yes                     yes      on the CPU
    HQQ                            yes                     yes      by hand
    GPTQ, AWQ, AQLM, EETQ, ...     yes                     no       with a stand-in

A merge dequantises Q, adds s T and quantises the sum, which rounds each entry to a level of the quantisation: the
merged model computes nearly what the adapted one does, and an entry of s T below half the step between two levels can
be lost. Meanwhile the base layer stays as it is and a copy of it holds the sum, so that unmerging is exact.
"""

import copy
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from peft.utils import get_quantization_kwargs, resolve_quantization_backend
from peft.utils.quantization_utils import QuantizationBackend
from torch import Tensor, nn

from adapters.base.kept_base import MergeError
from adapters.base.linear_layers import check_linear, describe, is_plain_linear
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.validation import ConfigurationError

PACKS = "support_avx512bf16_for_cpu"
"""The attribute of bitsandbytes' Linear4bit that decides whether it packs its weight."""


def backend_of(base: nn.Module, model: nn.Module) -> QuantizationBackend | None:
    """PEFT's backend for a quantised linear of a model; None for any other module."""
    if is_plain_linear(base) or not hasattr(base, "in_features"):
        return None
    return resolve_quantization_backend(
        base, **{"get_apply_tensor_subclass": _unknown, **get_quantization_kwargs(model)}
    )


def check_supported(base: nn.Module, model: nn.Module, path: str) -> None:
    """Check that a module of a model can have deltas.

    Raises:
        TypeError: it is neither a plain linear nor one with a backend.
    """
    if backend_of(base, model) is None:
        check_linear(base, path)


def keep_unpacked(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights for inference, as it does on CPUs with AVX512-BF16.

    A packed weight has its scales in bfloat16, has no gradient, and cannot be dequantised or unpacked exactly.

    Raises:
        ConfigurationError: one has been packed already.
    """
    for path, module in model.named_modules():
        if hasattr(module, PACKS):
            if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
                raise ConfigurationError(
                    "Adapters are added to 4-bit weights before the first inference on a CPU, for which bitsandbytes "
                    f"packs them for good; got a packed one at {path}: load the model again and add adapters first."
                )
            setattr(module, PACKS, False)


def _unknown() -> NoReturn:
    """In place of torchao's configuration, for a model that transformers has not quantised."""
    raise MergeError("A merged weight is quantised as its base was; got a torchao weight without a configuration.")


class TensorTrainPeftQuantisedLinear(TensorTrainPeftLinear):
    """The layer in place of a quantised linear.

    Args:
        backend: reads and writes the weight of the base layer.
    """

    _kept_layer: tuple[nn.Module, ...] = ()
    """The untouched base layer while a copy is merged, in a tuple so that it is not a submodule."""

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: TensorTrainConfig,
        path: str,
        backend: QuantizationBackend,
    ) -> None:
        self.quantization_backend = backend  # PEFT's name, for get_layer_status
        bias = getattr(base_layer, "bias", None)
        if bias is not None and not bias.is_leaf:  # HQQ's may be a clone of a Parameter, which cannot be copied
            base_layer.bias = bias.detach()
        super().__init__(base_layer, adapter_name, config, path)

    @property
    def is_merged(self) -> bool:
        return bool(self._kept_layer)

    def base_tensor(self, name: str) -> Tensor | None:
        """The untouched tensor; a weight (out, in) is dequantised.

        Raises:
            ValueError: the weight cannot be dequantised.
        """
        base = (*self._kept_layer, self.base_layer)[0]
        if name != "weight":
            return getattr(base, name, None)
        try:
            return self.quantization_backend.get_base_weight(base).detach()
        except (TypeError, NotImplementedError) as error:  # of PEFT's backends
            raise ValueError(f"a weight of {self.quantization_backend.backend_name} cannot be dequantised") from error

    def check_weight_can_change(self, where: str) -> None:
        backend = self.quantization_backend
        reason, fix = None, "evaluate it unmerged, or load the base without quantisation to merge"
        if not backend.supports_merge:
            reason = f"a weight of {backend.backend_name}, which PEFT can neither read nor write"
        elif getattr(backend, "get_apply_tensor_subclass", None) is _unknown:
            reason = "a weight of torchao without the configuration that it was quantised with"
            fix = "quantise the base by transformers' TorchAoConfig, or evaluate it unmerged"
        if reason is not None:
            raise MergeError(
                f"Deltas are merged into weights that can be quantised again; got {where}, beside {reason}: {fix}."
            )

    def merged_tensors(self, *args: Any, **kwargs: Any) -> dict[str, Tensor | None]:
        self.check_weight_can_change("a delta")
        return super().merged_tensors(*args, **kwargs)

    def base_output(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Call the base layer: x (..., in) -> (..., out).

        Raises:
            ConfigurationError: in training, its kernel gives x no gradient, as torchao's with quantised activations.
        """
        y = self.base_layer(x, *args, **kwargs)
        if self.training and torch.is_grad_enabled() and x.requires_grad and not y.requires_grad:
            raise ConfigurationError(
                "Adapters train beside weights through which a gradient flows; got a kernel of "
                f"{self.quantization_backend.backend_name} ({describe(self.base_layer)}) that has none: quantise the "
                "weights only, not the activations."
            )
        return y

    def replace_base(self, tensors: dict[str, Tensor | None]) -> None:
        """Let a copy of the base layer hold ``tensors``, a dense weight (out, in) quantised as the base's was."""
        self.restore_base()
        kept, bias = self.base_layer, tensors["bias"]
        self._kept_layer = (kept,)
        try:
            self.base_layer = copy.deepcopy(kept)
            self.quantization_backend.set_base_weight(self, tensors["weight"])
            self.base_layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
            self.base_layer.requires_grad_(False).train(kept.training)
        except BaseException:
            self.restore_base()
            raise

    def restore_base(self) -> None:
        if self._kept_layer:
            (self.base_layer,) = self._kept_layer
            self._kept_layer = ()

    def unmerged_state(self) -> dict[str, Tensor]:
        return (*self._kept_layer, self.base_layer)[0].state_dict()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        for layer in self._kept_layer:
            layer._apply(fn)
        return super()._apply(fn, recurse)
