"""The Parameters that the deltas of one adapter share, in one module of the base model.

    model.shared_by_deltas                                 SharedByDeltas, present while an adapter shares anything
    ...shared_by_deltas.tt_lora_delta.<adapter name>       nn.ParameterDict, the owner
    keys in a checkpoint                                   base_model.model.shared_by_deltas.tt_lora_delta.shared-0

It is a tuner layer for PEFT, although it replaces no layer of the base, and has its Parameters under the same name as
the layers with deltas. So PEFT saves, loads, freezes, casts and deletes them like any others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adapters.base.sharing import Sharing, plan_sharing
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.peft.host import TensorTrainPeftHost
from adapters.peft.layer import TensorTrainPeftLayer
from adapters.peft.sites import places_of

OWNER = "shared_by_deltas"


class SharedByDeltas(TensorTrainPeftLayer):
    """The owner of the Parameters that the deltas of each adapter share."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[str, list[TensorTrainPeftHost]] = {}
        """For each adapter one layer that borrows, in a list so that it is not a submodule."""
        self.frozen_keys: dict[str, list[str]] = {}

    weight = bias = None
    """PEFT reads those of its layers' bases; there is no base here."""

    @property
    def merged_adapters(self) -> list[str]:
        return [name for name, (host,) in self.hosts.items() if name in host.merged_adapters]

    def add_shared(self, adapter_name: str, planned: Sharing, host: TensorTrainPeftHost, trains: bool) -> None:
        """Take over the planned Parameters, and let their borrowers read them here."""
        owned = nn.ParameterDict({key: parameter for key, (parameter, _) in planned.items()})
        self.tt_lora_delta[adapter_name] = owned.train(self.training)
        self.hosts[adapter_name] = [host]
        self.frozen_keys[adapter_name] = []
        for key, (_, borrowers) in planned.items():
            owned[key].requires_grad_(trains)
            for layer, slot in borrowers:
                frozen = layer.cores.slot(slot)[1] in layer.frozen_cores
                layer.share(slot, owned, key)
            if frozen:
                self.frozen_keys[adapter_name].append(key)

    def forward(self, x: Tensor) -> Tensor:
        """x, unchanged, so that a model that calls all its children, such as a Sequential, computes the same."""
        return x

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Do nothing: layers merge what they borrow."""

    def unmerge(self) -> None:
        """Do nothing: layers unmerge."""

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove the Parameters of one adapter; a layer that borrowed from it tells which adapters are active then."""
        if adapter_name in self.tt_lora_delta:
            (host,) = self.hosts.pop(adapter_name)
            del self.tt_lora_delta[adapter_name], self.frozen_keys[adapter_name]
            active = [name for name in host.active_adapters if name != adapter_name]
            if adapter_name in self.active_adapters:
                self.set_adapter(active)

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        for name, keys in self.frozen_keys.items():
            for key in keys:
                self.tt_lora_delta[name][key].requires_grad_(False)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        if adapter_name in self.tt_lora_delta:
            (host,) = self.hosts[adapter_name]
            self.tt_lora_delta[adapter_name].to(device or host.device)


def plan(config: TensorTrainLoRAConfig, deltas: dict[str, nn.Module]) -> Sharing:
    """Plan what the deltas of one adapter, given by path, share.

    Raises:
        ConfigurationError: parameters of different shapes would have to be shared.
    """
    places = places_of(deltas)
    return plan_sharing(nn.Module(), "shared", "", config, [(place, deltas[place.path]) for place in places])


def share_in(
    model: nn.Module, adapter_name: str, config: TensorTrainLoRAConfig, active: list[str], trains: bool
) -> None:
    """Let the deltas of an adapter in the model share Parameters, as its configuration says."""
    hosts = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, TensorTrainPeftHost) and adapter_name in layer.tt_lora_delta
    }
    deltas = {path: delta for at, layer in hosts.items() for path, delta in layer.deltas_at(at, adapter_name).items()}
    planned = plan(config, deltas)
    if planned:
        if not hasattr(model, OWNER):
            setattr(model, OWNER, SharedByDeltas().train(model.training))
        getattr(model, OWNER).add_shared(adapter_name, planned, next(iter(hosts.values())), trains)
        getattr(model, OWNER)._active_adapter = list(active)


def drop_owner(model: nn.Module, whole: bool = False) -> None:
    """Remove the owner if it is empty, or in any case if ``whole``."""
    owner = getattr(model, OWNER, None)
    if isinstance(owner, SharedByDeltas) and (whole or not owner.tt_lora_delta):
        delattr(model, OWNER)
