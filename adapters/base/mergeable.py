"""What every place with adapters can do: hold merged weights for a while and give the untouched base back.

    set_merged   the Parameters hold the tensors that a merge changes; the base's are kept aside, untouched
    unmerge      the base tensors are put back, bit for bit, in any dtype, after any number of cycles

``state_dict`` is the base in every mode, so a checkpoint written in evaluation is right. Loading unmerges first, and so
does ``train(True)``, which costs nothing where nothing is merged.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from adapters.base.controller import AdapterController


class Mergeable(nn.Module):
    """Mixin before a module with Parameters ``weight`` and perhaps ``bias``."""

    _base: dict[str, Tensor | None] | None = None

    @classmethod
    def at(cls, model: nn.Module, path: str) -> "Mergeable":
        """The host at a path of ``model``; it takes the place of the base's own module on first use."""
        base = model.get_submodule(path)
        if not isinstance(base, cls):
            base = cls(base)
            model.set_submodule(path, base)
        return base

    def named_controllers(self) -> list[tuple[str, AdapterController]]:
        """The adapters here, with their paths below this module."""
        return [(name, module) for name, module in self.named_modules() if isinstance(module, AdapterController)]

    def start(self, adapter: nn.Module) -> None:
        """Give one adapter of this place its initial values, in place."""
        raise NotImplementedError

    def merged_weights(self) -> dict[str, Tensor]:
        """The dense tensors that do what base and active adapters do, where they are not the base's, by name."""
        raise NotImplementedError

    @property
    def is_merged(self) -> bool:
        return self._base is not None

    def base_tensor(self, name: str) -> Tensor | None:
        """The base's tensor, merged or not; None for a bias that is not there."""
        if self._base is not None and name in self._base:
            return self._base[name]
        parameter = getattr(self, name)
        return None if parameter is None else parameter.data

    def set_merged(self, tensors: dict[str, Tensor | None]) -> None:
        """Hold these tensors until ``unmerge``; a bias that the base lacks is made for the while."""
        self.unmerge()
        self._base = {name: self.base_tensor(name) for name in tensors}
        self._hold(tensors)

    def unmerge(self) -> None:
        """Put the base back; nothing happens where nothing is merged."""
        if self._base is not None:
            self._hold(self._base)
            self._base = None

    def _hold(self, tensors: dict[str, Tensor | None]) -> None:
        for name, tensor in tensors.items():
            parameter = getattr(self, name)
            if parameter is not None and tensor is not None:
                parameter.data = tensor
            else:
                setattr(self, name, None if tensor is None else nn.Parameter(tensor, requires_grad=False))

    def train(self, mode: bool = True) -> nn.Module:
        if mode:
            self.unmerge()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        if self._base is not None:
            self._base = {name: None if tensor is None else fn(tensor) for name, tensor in self._base.items()}
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in (self._base or {}).items():
            if tensor is None:
                destination.pop(prefix + name, None)
            else:
                destination[prefix + name] = tensor

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.unmerge()
        super()._load_from_state_dict(*args, **kwargs)
