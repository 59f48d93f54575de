"""Compiled models: torch.compile(module) puts ``_orig_mod.`` before the paths of its modules and parameters.

torch.compile(model)           a wrapper around the model          _orig_mod.encoder.block.0...
compiled_in_place(model)       the model, compiled as it was       encoder.block.0...
uncompiled(model)              the model in the wrapper            encoder.block.0...
"""

from torch import nn

WRAPPED = "_orig_mod"


def uncompiled(model: nn.Module) -> nn.Module:
    """The model in a wrapper of ``torch.compile``, with its original paths; parts are compiled in place."""
    return compiled_in_place(getattr(model, WRAPPED, model))


def original_path(path: str) -> str:
    """The path of a module or parameter in the model as it was before any of its parts were compiled."""
    return ".".join(part for part in path.split(".") if part != WRAPPED)


def compiled_in_place(model: nn.Module) -> nn.Module:
    """Remove the wrappers of ``torch.compile`` from a model and its parts, which stay compiled with their options.

    Returns:
        The model without wrappers: compiled as by ``model.compile()``, which changes no path (and compiles nothing in
        modules of torch's own classes).
    """
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if name != WRAPPED and _is_wrapper(child):
                setattr(module, name, _in_place(child))
    return _in_place(model) if _is_wrapper(model) else model


def _is_wrapper(module: nn.Module | None) -> bool:
    return module is not None and WRAPPED in module._modules


def _in_place(wrapper: nn.Module) -> nn.Module:
    module = wrapper._modules[WRAPPED]
    module._compiled_call_impl = wrapper.dynamo_ctx(module._call_impl)
    return module
