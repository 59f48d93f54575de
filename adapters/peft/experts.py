"""The experts of one layer of the base with TT deltas of their weights for each PEFT adapter.

    y = W_e x + sum over the active adapters of s T_e x       for the tokens x that are routed to expert e

    base_layer       the module with the stacks W (experts, out, in) or (experts, in, out), frozen
    tt_lora_delta    {adapter name: {name of the stack: DeltaPerExpert}}, float32 for any dtype of the base

The stacks have stand-ins while the base layer computes, see ``adapters.base.expert_weights``. Merging and unmerging are
those of linears.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.expert_weights import IMPLEMENTATIONS, ExpertWeights, refuse_computation
from adapters.base.experts import DeltaPerExpert, as_out_in, stack_sizes
from adapters.base.kept_base import check_finite
from adapters.base.linear_delta import start_from_weight
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.host import TensorTrainPeftHost, start_as_configured


class TensorTrainPeftExperts(TensorTrainPeftHost):
    """The layer in place of a module of experts in a model that PEFT has adapted; deltas come by ``update_layer``."""

    def update_layer(self, adapter_name: str, config: TensorTrainConfig, path: str) -> None:
        """Add the deltas of one adapter to the stack at ``path`` in the model, on the base's device."""
        stack = path.rpartition(".")[2]
        weight = self.base_tensor(stack)
        with torch.device(weight.device):
            deltas = deltas_of_stack(config, self.base_layer, path)
            start_as_configured(deltas, config)
        if not next(deltas.parameters()).is_meta:
            for delta, one in zip(deltas.experts, as_out_in(self.base_layer, weight), strict=True):
                start_from_weight(delta, lambda weight=one: weight, path)
        if adapter_name not in self.tt_lora_delta:
            self.tt_lora_delta[adapter_name] = nn.ModuleDict()
        self.tt_lora_delta[adapter_name][stack] = deltas.train(self.training)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def deltas_at(self, path: str, adapter_name: str) -> dict[str, nn.Module]:
        return {f"{path}.{stack}": deltas for stack, deltas in self.tt_lora_delta[adapter_name].items()}

    def changed_parameters(self, adapter_names: Sequence[str]) -> Iterator[nn.Parameter]:
        for stack in self._stacks(adapter_names):
            yield self.base_layer.get_parameter(stack)

    def get_delta_weight(self, adapter_name: str, stack: str) -> Tensor:
        """s T_e of all experts in the shape of a stack; ValueError for an adapter with a core activation."""
        deltas = self.tt_lora_delta[adapter_name][stack].experts
        return as_out_in(self.base_layer, torch.stack([delta.delta_weight() for delta in deltas]))

    @torch.no_grad()
    def merged_tensors(self, names: Sequence[str], safe_merge: bool = False) -> dict[str, Tensor | None]:
        """The stacks that ``merge`` writes; raises as it does. One expert at a time is in float32."""
        adapters = (*self.merged_adapters, *names)
        merged = {stack: self.base_tensor(stack).clone() for stack in self._stacks(adapters)}
        for stack, tensor in merged.items():
            dtype = torch.promote_types(tensor.dtype, torch.float32)
            deltas = [self._deltas(name)[stack] for name in adapters if stack in self._deltas(name)]
            for e, one in enumerate(as_out_in(self.base_layer, tensor)):  # views (out, in)
                total = one.to(dtype)
                for delta in deltas:
                    total = delta.experts[e].added_to(total)
                one.copy_(total)
        if safe_merge:
            check_finite(merged.values(), f"for the adapters {list(names)}")
        return merged

    @torch.compiler.disable
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters:
            self.unmerge()
        if not (acting := self.acting):
            return self.base_layer(*args, **kwargs)
        implementation = getattr(getattr(self.base_layer, "config", None), "_experts_implementation", None)
        if implementation not in IMPLEMENTATIONS:
            refuse_computation(f"is {implementation!r}")
        with self._stand_ins(acting):
            return self.base_layer(*args, **kwargs)

    @contextmanager
    def _stand_ins(self, adapter_names: Sequence[str]) -> Iterator[None]:
        """Put stand-ins with deltas before the stacks, as attributes that are found before the Parameters."""
        stacks, base = self._stacks(adapter_names), self.base_layer
        for stack in stacks:
            deltas = [self._deltas(name)[stack] for name in adapter_names if stack in self._deltas(name)]
            vars(base)[stack] = ExpertWeights(getattr(base, stack), deltas, base.is_transposed)
        try:
            yield
        finally:
            for stack in stacks:
                del vars(base)[stack]

    def _deltas(self, adapter_name: str) -> dict[str, DeltaPerExpert]:
        """The deltas of one adapter by stack, if it has any here."""
        return dict(self.tt_lora_delta[adapter_name]) if adapter_name in self.tt_lora_delta else {}

    def _stacks(self, adapter_names: Sequence[str]) -> list[str]:
        """Names of the stacks that have deltas of one of these adapters."""
        return list(dict.fromkeys(stack for name in adapter_names for stack in self._deltas(name)))


def base_of(module: nn.Module) -> nn.Module:
    """The module of the base that is, or was, in the place of ``module``."""
    return module.base_layer if isinstance(module, TensorTrainPeftExperts) else module


def deltas_of_stack(config: TensorTrainConfig, module: nn.Module, path: str) -> DeltaPerExpert:
    """Build the deltas of the stack at ``path``, which a ``module`` of the base holds."""
    experts, in_features, out_features = stack_sizes(module, path.rpartition(".")[2])
    first = config.to_adapter_config().build_at_path(path, in_features, out_features)
    others = [copy.deepcopy(first) for _ in range(experts - 1)]  # faster: the shape is not chosen again
    for delta in others:
        delta.reset_parameters()
    return DeltaPerExpert([first, *others])
