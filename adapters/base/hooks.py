"""Hooks on a module, which a computation that does not call it would skip."""

from torch import nn


def is_hooked(module: nn.Module) -> bool:
    """Whether calling this module does more than its class's forward: it has hooks, or a forward of the instance."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)
