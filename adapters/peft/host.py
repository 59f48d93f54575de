"""What the layers with deltas have in common: merging into weights that are kept, and the adapters that act."""

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn

from adapters.base.kept_base import KeptBase
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.layer import TensorTrainPeftLayer
from t3nsor import TTLinear
from t3nsor.module import TTModule


class TensorTrainPeftHost(KeptBase, TensorTrainPeftLayer):
    """A layer in place of a module of the base, with deltas of its weights.

    Args:
        base_layer: that module.
        adapter_name: of the first adapter.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters = []
        self._active_adapter = adapter_name

    def base_module(self) -> nn.Module:
        return self.base_layer

    def deltas_at(self, path: str, adapter_name: str) -> dict[str, nn.Module]:
        """The modules of one adapter by the path of the weight that each changes, for this layer at ``path``."""
        raise NotImplementedError

    def changed_parameters(self, adapter_names: Sequence[str]) -> Iterator[nn.Parameter]:
        """The Parameters of the base that these adapters change."""
        raise NotImplementedError

    def merged_tensors(self, names: Sequence[str], safe_merge: bool = False) -> dict[str, Tensor | None]:
        """The tensors, as the base stores them, that ``merge`` writes; raises as it does."""
        raise NotImplementedError

    def check_weight_can_change(self, where: str) -> None:
        """Raise MergeError if the base's weight cannot be replaced; ``where`` names the adapter and the place."""

    def adds_missing_bias(self, adapter_name: str) -> bool:
        """Whether the delta of this adapter has a bias c and the base has no b."""
        return False

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

    def unmerge(self) -> None:
        """Put the tensors of the base back, if anything is merged."""
        self.restore_base()
        self.merged_adapters.clear()

    def unmerged_state(self) -> dict[str, Tensor]:
        """The ``state_dict`` of the base layer without merged adapters."""
        state = {**self.base_layer.state_dict(), **(self._kept or {})}
        return {name: tensor for name, tensor in state.items() if tensor is not None}

    @property
    def acting(self) -> list[str]:
        names = [] if self.disable_adapters else self.active_adapters
        return [name for name in names if name in self.tt_lora_delta and name not in self.merged_adapters]

    @property
    def device(self) -> torch.device:
        """That of the base."""
        return next(chain(self.base_layer.parameters(), self.base_layer.buffers())).device

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        """Keep frozen and disabled cores frozen; PEFT calls this wherever it makes whole adapters trainable."""
        for module in self.tt_lora_delta.modules():
            if isinstance(module, TTModule):
                module.freeze_cores()

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move without casting, for PEFT's own would round the adapter to the base's dtype after a meta-device load."""
        if adapter_name in self.tt_lora_delta:
            self.tt_lora_delta[adapter_name].to(device or self.device)


def start_as_configured(deltas: nn.Module, config: TensorTrainConfig) -> None:
    """Draw all cores of new deltas at random unless ``init_weights``, with which they start at zero."""
    for linear in () if config.init_weights else deltas.modules():
        if isinstance(linear, TTLinear):
            linear.zero_core = None
            linear.reset_parameters()
