"""Who looks at the calls of a module: a computation that goes around a call would pass over them."""

from torch import nn


def is_hooked(module: nn.Module) -> bool:
    """Whether a call of this module is more than its class's forward: hooks, or a forward of its own."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)
