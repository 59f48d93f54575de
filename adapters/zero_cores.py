"""The TT deltas of a model and the cores of them that start at zero, with ``attach`` or in PEFT.

adapters.attach     controllers by adapter name, with an active module each
our tuner in PEFT   ``tt_lora_delta`` of a layer, a module for each adapter name, with a delta or several for experts
"""

from collections.abc import Iterator

from torch import nn

from adapters.base.loops import deltas_of
from adapters.merging import adapted_modules
from adapters.tensor_train.delta import TensorTrainDelta
from t3nsor.linear import TTLinear


def active_deltas(model: nn.Module) -> Iterator[tuple[str, TensorTrainDelta]]:
    """Yield the name of the adapter and the module of each active TT delta."""
    for _, host in adapted_modules(model):
        for path, controller in host.named_controllers():
            for delta in deltas_of(controller.active):
                if isinstance(delta, TensorTrainDelta):
                    yield path.rpartition(".")[2], delta
    for module in model.modules():
        if hasattr(module, "tt_lora_delta") and not module.disable_adapters:
            for name in module.active_adapters:
                for delta in module.tt_lora_delta[name].modules() if name in module.tt_lora_delta else ():
                    if isinstance(delta, TensorTrainDelta):
                        yield name, delta


def zero_core(linear: TTLinear) -> nn.Parameter | None:
    """Return the Parameter of the core that started at zero; None for a "principal" start."""
    return None if linear.zero_core is None else linear.cores.zero_parameter(linear.zero_core)
