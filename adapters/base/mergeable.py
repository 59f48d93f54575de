"""What the hosts of adapters have in common: building adapters, and holding merged weights temporarily.

A host replaces a linear or a layer norm, or acts before a stack. Its ``state_dict`` is that of the unmerged model in
every mode, so a checkpoint written during evaluation is right. Loading unmerges first, and so does ``train(True)``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.controller import AdapterController
from adapters.base.kept_base import KeptBase
from adapters.base.places import Place


class Mergeable(KeptBase):
    """Mixin before a module with Parameters ``weight`` and, possibly, ``bias``."""

    @classmethod
    def install(cls, model: nn.Module, path: str) -> "Mergeable":
        """The host at ``path``; on first use it takes the place of the base's module, under all of its names."""
        base = model.get_submodule(path)
        if isinstance(base, cls):
            return base
        host = cls.host_of(base)
        _replace(model, base, host)
        return host

    @classmethod
    def host_of(cls, base: nn.Module) -> "Mergeable":
        """The host that takes the place of a module of the base."""
        return cls(base)

    def plain(self) -> nn.Module:
        """A module of the base's own class with the Parameters that are here now."""
        raise NotImplementedError

    def uninstall(self, model: nn.Module, path: str) -> None:
        """Put ``plain`` at ``path``, where this host is, in its place: the opposite of ``install``."""
        _replace(model, self, self.plain().train(self.training))

    @classmethod
    def base_at(cls, model: nn.Module, path: str, config: Any) -> nn.Module:
        """The module with the weight at ``path``, already adapted or not.

        Raises:
            ConfigurationError: it is of a class that this host does not support.
        """
        return model.get_submodule(path)

    @classmethod
    def build_adapter(cls, base: nn.Module, config: Any, place: Place) -> nn.Module:
        """The adapter of one place, on the device and in the mode of ``base``, which is left unchanged.

        Args:
            base: what ``base_at`` gave.
            config: an ``AdapterConfig``.
        """
        weight = base.base_tensor("weight") if isinstance(base, KeptBase) else base.weight.detach()
        with torch.device(weight.device):
            return cls._build(base, weight, config, place).train(base.training)

    @classmethod
    def _build(cls, base: nn.Module, weight: Tensor, config: Any, place: Place) -> nn.Module:
        """The adapter, started from the untouched ``weight`` if its kind requires it."""
        raise NotImplementedError

    def initialize_adapter(self, adapter: nn.Module) -> None:
        """Give one adapter of this place its initial values, in place."""
        raise NotImplementedError

    def merged_weights(self) -> dict[str, Tensor]:
        """The dense tensors, by name, that compute the same as the base with its active adapters; only changed ones."""
        raise NotImplementedError

    def named_controllers(self) -> list[tuple[str, AdapterController]]:
        """The adapters here, with their paths below this module."""
        return [(name, module) for name, module in self.named_modules() if isinstance(module, AdapterController)]

    @property
    def acting(self) -> list[str]:
        if self.is_merged:
            return []
        return [
            path.rpartition(".")[2] for path, controller in self.named_controllers() if controller.active is not None
        ]

    def train(self, mode: bool = True) -> nn.Module:
        if mode:
            self.restore_base()
        return super().train(mode)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in (self._kept or {}).items():
            if tensor is None:
                destination.pop(prefix + name, None)
            else:
                destination[prefix + name] = tensor

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.restore_base()
        super()._load_from_state_dict(*args, **kwargs)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another one; several modules, or names of one module, may hold that."""
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(path, new)
