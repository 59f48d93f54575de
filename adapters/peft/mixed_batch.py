"""A batch whose rows go through different adapters: PEFT's argument ``adapter_names`` of a forward and of ``generate``.

    rows of the caller           ["en", "__base__", "de"]                  one name for each
    rows of generate, 2 beams    en en __base__ __base__ de de             each row k times, one after the other
    rows of its encoder          en __base__ de                            as the caller's

The names are in the layers for the time of the call (``adapters.peft.row_adapters``), and reach PEFT's whole modules
(modules_to_save) by hooks.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from adapters.peft.adapter_names import check_names
from adapters.peft.experts import TensorTrainPeftExperts
from adapters.peft.layer import TensorTrainPeftLayer
from adapters.peft.row_adapters import BASE, RowAdapters
from adapters.validation import ConfigurationError


@contextmanager
def adapters_by_row(model: nn.Module, names: Sequence[str], call: Mapping[str, Any]) -> Iterator[None]:
    """Let each row of the batches in this context go through its own adapter.

    Args:
        model: a ``TensorTrainModel``.
        names: of the adapters, one for each row.
        call: the keyword arguments of the call.

    Raises:
        TypeError: ``names`` is not a list of strings.
        ConfigurationError: there is no such adapter, the model is in training mode, adapters are merged, experts have
            deltas, or a compiled model has whole modules.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"adapter_names should be a list of strings, one for each row of the batch, got {names!r}.")
    check_names([name for name in names if name != BASE], model.peft_config)
    rows = RowAdapters(tuple(names), _repeats(call))
    layers = [module for module in model.modules() if isinstance(module, TensorTrainPeftLayer)]
    wholes = [module for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    _check_state(model, layers, wholes, names)
    handles = [whole.register_forward_pre_hook(_hook(rows), with_kwargs=True) for whole in wholes]
    try:
        for layer in layers:
            layer.row_adapters = rows
        yield
    finally:
        for layer in layers:
            layer.row_adapters = None
        for handle in handles:
            handle.remove()


def _repeats(call: Mapping[str, Any]) -> int:
    """How often ``generate`` repeats each row: once for each beam, or for each returned sequence."""
    config = call.get("generation_config")
    keys = ("num_beams", "num_return_sequences")
    return max(call.get(key) or getattr(config, key, None) or 1 for key in keys)


def _check_state(
    model: nn.Module,
    layers: Sequence[TensorTrainPeftLayer],
    wholes: Sequence[AuxiliaryTrainingWrapper],
    names: Sequence[str],
) -> None:
    def refuse(rule: str, given: str, fix: str) -> None:
        raise ConfigurationError(f"adapter_names {rule}; got {list(names)} {given}: {fix}.")

    if model.training:
        refuse("is for evaluation", "in training mode, where only the active adapters train", "call model.eval() first")
    if any(isinstance(layer, TensorTrainPeftExperts) for layer in layers):
        refuse(
            "reaches linears", "with deltas of experts, which see tokens without their rows", "call set_adapter instead"
        )
    if merged := sorted({name for layer in layers for name in layer.merged_adapters}):
        refuse("needs adapters beside the base weights", f"while {merged} are merged", "call unmerge_adapter() first")
    if wholes and any(module._compiled_call_impl for module in model.modules()):
        fix = "use the model as it was before torch.compile"
        refuse("does not reach modules_to_save of a compiled model", "in one", fix)


def _hook(rows: RowAdapters) -> Any:
    """A hook that tells a whole module the adapter of each row, or that it has none of its own."""

    def names_of_rows(whole: AuxiliaryTrainingWrapper, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        names = [name if name in whole._adapters else BASE for name in rows.of(args[0])]
        return args, {**kwargs, "adapter_names": names}

    return names_of_rows
