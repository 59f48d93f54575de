"""The model inside a compiled one: torch.compile puts ``_orig_mod.`` before the paths of modules and parameters."""

from torch import nn


def uncompiled(model: nn.Module) -> nn.Module:
    """The model itself, without the wrapper of ``torch.compile``, so that its modules have their original paths."""
    return getattr(model, "_orig_mod", model)
