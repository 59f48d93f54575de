"""Whether the adapters act: a forward pass that computes without calling an adapted module leaves its delta out.

    y = self.proj(x)                       the delta acts
    y = F.linear(x, self.proj.weight)      it does not: the weight is the base's, as long as nothing is merged

Two passes find the second form, without a permanent hook:

1. A hook for all modules notes which are called. Adapters that are merged, or inactive as those of other tasks, are not
   expected to be.
2. Only if an adapted module was not called, the pass is repeated and its operations are watched for one that has the
   weight of such a module as an argument. One that is found is refused. The others are rightly unused: an expert
   without a token, a decoder if only the encoder runs, a branch that was not taken.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adapters.base.kept_base import KeptBase
from adapters.compiled import uncompiled
from adapters.validation import ConfigurationError

CONTAINERS = (nn.ModuleList, nn.ModuleDict)
"""Modules without a forward, whose entries are chosen by their parent."""


def check_acts(model: nn.Module, batch: Any) -> list[str]:
    """Check in one forward pass that no adapter is bypassed, in the mode (train or eval) in which the model is.

    For a plain training loop: call it for the first training batch, and for the first evaluation batch unless that is
    evaluated merged. ``third_party.trainers`` do. Random numbers drawn in the pass are drawn again afterwards.

    Args:
        model: a model with adapters, attached here or by the tuner in ``adapters.peft``; it may be compiled or
            wrapped for several processes, and is run without its wrapper.
        batch: keyword arguments of its forward; or positional ones in a tuple or list, or a single one.

    Returns:
        Paths of adapted modules in a branch that this batch does not take: their parent was called, and has neither
        called them nor read their weight.

    Raises:
        ConfigurationError: a weight was read without calling its module, so that the delta has no effect.
    """
    model = unwrapped(model)
    args, kwargs = ((), batch) if isinstance(batch, Mapping) else (batch, {})
    args = args if isinstance(args, tuple | list) else (args,)
    with random_numbers_kept(), WatchedPass(model) as watched:
        model(*args, **kwargs)
    return watched.check(lambda: model(*args, **kwargs))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without the wrappers of torch.compile and of several devices or processes."""
    while (inner := _inner(model)) is not model:
        model = inner
    return model


def _inner(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DataParallel | DistributedDataParallel) else uncompiled(model)


class WatchedPass:
    """A context around one forward pass, in which compiled code runs eagerly; ``check`` judges it afterwards.

    Args:
        model: the model itself, without wrappers.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.called: set[nn.Module] = set()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "WatchedPass":
        # not a hook on the module itself, which torch's encoder layer sees and then calls its linears
        hook = register_module_forward_pre_hook(lambda module, _: self.called.add(module))
        self._stack.callback(hook.remove)
        self._stack.enter_context(torch.compiler.set_stance("force_eager"))
        self._stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Using `torch.compile", UserWarning)  # that its wrapper calls the hook too
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def check(self, repeat: Callable[[], Any]) -> list[str]:
        """The paths that ``check_acts`` returns; raises as it does.

        Args:
            repeat: runs the same pass once more, which happens only if an adapted module was not called.
        """
        idle = {
            path: module
            for path, module in self.model.named_modules()
            if isinstance(module, KeptBase) and module.acting and module not in self.called
        }
        if not idle:
            return []
        with random_numbers_kept(), torch.compiler.set_stance("force_eager"):
            read = self._read_weights(idle, repeat)
        if read:
            names = ", ".join(f"{path} ({', '.join(idle[path].acting)})" for path in read)
            raise ConfigurationError(
                f"An adapted module must be called for its adapters to act; got a forward pass that reads the weights "
                f"of {names} without calling them, so that they have no effect: leave these modules out, or merge."
            )
        unused = [path for path, module in idle.items() if module not in self.called]
        return [path for path in unused if self._is_in_use(self.model.get_submodule(path.rpartition(".")[0]))]

    def _is_in_use(self, parent: nn.Module) -> bool:
        """Whether the pass went through this module; a list, as of experts, has no forward and does not count."""
        return not isinstance(parent, CONTAINERS) and not self.called.isdisjoint(parent.modules())

    def _read_weights(self, idle: dict[str, KeptBase], repeat: Callable[[], Any]) -> list[str]:
        """Paths of the modules whose weight is an argument of an operation in the repeated pass.

        A weight that a called module holds too, such as an embedding tied to the head, does not count.
        """
        own = {id(module.base_module()): path for path, module in idle.items()}
        elsewhere = {id(p) for m in self.called if id(m) not in own for p in m.parameters(recurse=False)}
        paths = {
            id(parameter): path
            for path, module in idle.items()
            for parameter in module.base_module().parameters(recurse=False)
            if id(parameter) not in elsewhere
        }
        with direct_calls_noted(idle.values()) as direct, WatchedOperations() as operations:
            repeat()
        self.called |= direct
        read = dict.fromkeys(path for key, path in paths.items() if key in operations.arguments)
        return [path for path in read if idle[path] not in direct]


@contextlib.contextmanager
def direct_calls_noted(modules: Iterable[nn.Module]) -> Iterator[set[nn.Module]]:
    """The modules whose ``forward`` is called in the body, which no hook sees: y = self.proj.forward(x)."""
    noted: set[nn.Module] = set()

    def noting(module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def note(*args: Any, **kwargs: Any) -> Any:
            noted.add(module)
            return forward(*args, **kwargs)

        return note

    modules = [module for module in modules if "forward" not in vars(module)]
    for module in modules:
        module.forward = noting(module)
    try:
        yield noted
    finally:
        for module in modules:
            del module.forward


class WatchedOperations(TorchDispatchMode):
    """The identities of all tensors that operations take as arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.arguments: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.arguments |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, nn.Parameter)}
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Give the random number generators of the CPU and of the current GPU their state back afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield
