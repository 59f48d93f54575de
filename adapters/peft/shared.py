"""What the deltas of one adapter have in common, in one module of the base model.

    model.shared_by_deltas                                 SharedByDeltas, there as long as an adapter shares anything
    ...shared_by_deltas.tt_lora_delta.<adapter name>       nn.ParameterDict, the one owner
    keys in a checkpoint                                   base_model.model.shared_by_deltas.tt_lora_delta.shared-0

It is a layer of PEFT's, though in the place of none of the base's, and holds its Parameters under the same name as the
layers with deltas: so PEFT saves, loads, freezes, casts and deletes them as it does with any other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adapters.base.sharing import Sharing, plan_sharing
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.peft.layer import TensorTrainPeftLayer
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.sites import places_of

OWNER = "shared_by_deltas"


class SharedByDeltas(TensorTrainPeftLayer):
    """The owner of the Parameters that the deltas of each adapter share."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[str, list[TensorTrainPeftLinear]] = {}
        """For each adapter one layer that borrows, in a list so that it does not become a child."""
        self.fixed: dict[str, list[str]] = {}

    @property
    def merged_adapters(self) -> list[str]:
        return [name for name, (host,) in self.hosts.items() if name in host.merged_adapters]

    def take(self, adapter_name: str, planned: Sharing, host: TensorTrainPeftLinear, trains: bool) -> None:
        """Own the planned Parameters from now on, and let their borrowers read them here."""
        owned = nn.ParameterDict({key: parameter for key, (parameter, _) in planned.items()})
        self.tt_lora_delta[adapter_name] = owned.train(self.training)
        self.hosts[adapter_name] = [host]
        self.fixed[adapter_name] = []
        for key, (_, borrowers) in planned.items():
            owned[key].requires_grad_(trains)
            for layer, slot in borrowers:
                frozen = layer.cores.slot(slot)[1] in layer.frozen_cores
                layer.share(slot, owned, key)
            if frozen:
                self.fixed[adapter_name].append(key)

    def forward(self, x: Tensor) -> Tensor:
        """x as it is: a model that calls all its children in turn, as a Sequential does, computes what it did."""
        return x

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Nothing: layers merge what they borrow."""

    def unmerge(self) -> None:
        """Nothing: layers unmerge."""

    def delete_adapter(self, adapter_name: str) -> None:
        """Drop what is one adapter's; those that act are then those of a layer that borrowed from it."""
        if adapter_name in self.tt_lora_delta:
            (host,) = self.hosts.pop(adapter_name)
            del self.tt_lora_delta[adapter_name], self.fixed[adapter_name]
            active = [name for name in host.active_adapters if name != adapter_name]
            if adapter_name in self.active_adapters:
                self.set_adapter(active)

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        for name, keys in self.fixed.items():
            for key in keys:
                self.tt_lora_delta[name][key].requires_grad_(False)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        if adapter_name in self.tt_lora_delta:
            (host,) = self.hosts[adapter_name]
            self.tt_lora_delta[adapter_name].to(device or host.base_layer.weight.device)


def plan(config: TensorTrainLoRAConfig, deltas: dict[str, nn.Module]) -> Sharing:
    """What the deltas of one adapter, by their paths, are to share.

    Raises:
        ConfigurationError: parameters of different shapes would have to be one.
    """
    places = places_of(deltas)
    return plan_sharing(nn.Module(), "shared", "", config, [(place, deltas[place.path]) for place in places])


def share_in(
    model: nn.Module, adapter_name: str, config: TensorTrainLoRAConfig, active: list[str], trains: bool
) -> None:
    """Let the deltas of an adapter that is there already share what its configuration says."""
    hosts = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, TensorTrainPeftLinear) and adapter_name in layer.tt_lora_delta
    }
    planned = plan(config, {path: layer.tt_lora_delta[adapter_name] for path, layer in hosts.items()})
    if planned:
        if not hasattr(model, OWNER):
            setattr(model, OWNER, SharedByDeltas().train(model.training))
        getattr(model, OWNER).take(adapter_name, planned, next(iter(hosts.values())), trains)
        getattr(model, OWNER)._active_adapter = list(active)


def drop_owner(model: nn.Module, whole: bool = False) -> None:
    """Remove the owner where it holds nothing any more, or in any case."""
    owner = getattr(model, OWNER, None)
    if isinstance(owner, SharedByDeltas) and (whole or not owner.tt_lora_delta):
        delattr(model, OWNER)
