"""A base that is wrapped again, as by a notebook cell that runs a second time.

    model = get_peft_model(base, config)        the adapter "default"
    model = get_peft_model(base, other)         PEFT warns; the new "default" takes the place of the earlier one
    model = get_peft_model(model, other)        the same: the base of ``model`` is wrapped, not ``model``

In PEFT's LoRA the earlier adapter stays, and goes on acting, at linears that the new one does not have.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import delete_adapter
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from adapters.peft.configuration import PREFIX
from adapters.peft.layer import TensorTrainPeftLayer
from adapters.peft.shared import drop_owner


def without_wrapper(model: Any) -> Any:
    """Return the base of a PeftModel of this tuner, and any other model as it is."""
    return model.get_base_model() if isinstance(model, PeftModel) and _deltas_of(model) else model


@contextmanager
def configurations_kept(model: Any) -> Iterator[None]:
    """Put the configurations of earlier adapters of a model back if another one is refused, as PEFT overwrites them."""
    configurations = getattr(model, "peft_config", {})
    earlier = dict(configurations)
    try:
        yield
    except BaseException:
        configurations.clear()
        configurations.update(earlier)
        raise


def remove_earlier(model: nn.Module, name: str) -> None:
    """Unmerge and remove what an earlier adapter of this name has in the model, whole modules included."""
    earlier = [layer for layer in _deltas_of(model) if name in layer.tt_lora_delta]
    if not earlier:
        return
    for layer in earlier:
        if name in layer.merged_adapters:
            layer.unmerge()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted")  # the new one is active
        delete_adapter(model, name, PREFIX, TensorTrainPeftLayer)
    drop_owner(model)


def activate_whole_modules(model: nn.Module, name: str, inference_mode: bool) -> None:
    """Make the whole modules of a new adapter active where none is, as after an earlier one of its name."""
    for module in model.modules():
        if isinstance(module, AuxiliaryTrainingWrapper) and name in module._adapters and not module.active_adapters:
            module.set_adapter(name, inference_mode=inference_mode)


def _deltas_of(model: nn.Module) -> list[TensorTrainPeftLayer]:
    return [module for module in model.modules() if isinstance(module, TensorTrainPeftLayer)]
