"""The base class of the tuner's layers: their Parameters are in one module for each adapter.

enabled     the Parameters that train are those that ``set_adapter`` and ``set_requires_grad`` chose
disabled    none trains; which ones will train again is remembered, and the same two methods change it
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

Switched = BaseTunerLayer | AuxiliaryTrainingWrapper
"""What PEFT enables and disables: layers with adapters, and whole modules that train."""
REMEMBERED = "_trainable_when_enabled"


class TensorTrainPeftLayer(nn.Module, BaseTunerLayer):
    """A layer of this tuner; ``tt_lora_delta`` has one entry for each adapter."""

    adapter_layer_names = ("tt_lora_delta",)
    row_adapters = None
    """The ``RowAdapters`` of the call in progress, if it has ``adapter_names``."""

    def __init__(self) -> None:
        super().__init__()
        self.tt_lora_delta = nn.ModuleDict()

    def enable_adapters(self, enabled: bool) -> None:
        """Switch the adapters on or off; when they are on again, the Parameters train that did before."""
        freeze_when_disabled(self, not enabled)
        self._disable_adapters = not enabled

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        with as_when_enabled([self]):
            super().set_adapter(adapter_names, inference_mode)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        with as_when_enabled([self]):
            super().set_requires_grad(adapter_names, requires_grad)


def freeze_when_disabled(module: Switched, disabled: bool) -> None:
    """Freeze the adapters of a module and remember what trains; or let that train again. Nothing happens twice."""
    parameters = {
        f"{layer}.{name}": parameter
        for layer in module.adapter_layer_names
        for name, parameter in attrgetter(layer)(module).named_parameters()
        if parameter.is_leaf  # only leaves can be frozen; FSDP has others
    }
    remembered = vars(module).get(REMEMBERED)
    if disabled and remembered is None:
        setattr(module, REMEMBERED, {name for name, parameter in parameters.items() if parameter.requires_grad})
        for parameter in parameters.values():
            parameter.requires_grad_(False)
    elif not disabled and remembered is not None:
        delattr(module, REMEMBERED)
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in remembered)


@contextmanager
def as_when_enabled(modules: Iterable[Switched]) -> Iterator[None]:
    """Let what trains be changed in these modules as if they were enabled, and freeze the disabled ones again."""
    disabled = [module for module in modules if module.disable_adapters]
    for module in disabled:
        freeze_when_disabled(module, False)
    try:
        yield
    finally:
        for module in disabled:
            freeze_when_disabled(module, True)
