"""A model behind torch.compile, which puts ``_orig_mod.`` before the paths of its modules and parameters."""

from torch import nn


def uncompiled(model: nn.Module) -> nn.Module:
    """The model itself where it is compiled as a whole; it has the same modules, by the paths that they were given."""
    return getattr(model, "_orig_mod", model)
