"""The linear layers of base models, and how each class stores its weight.

    class        y = W x + b, W (out, in)      weight
    nn.Linear    W                             (out, in)
    Conv1D       its transpose, as in GPT-2    (in, out)

A linear is plain if its class is one of these two and its weight is dense. Only the weight of a plain linear is read:
a subclass may store or use its weight in another way, as bitsandbytes' Linear4bit does, and torchao puts one of its
own class into an ``nn.Linear``.
"""

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

LINEAR_CLASSES = (nn.Linear, Conv1D)


def is_dense(weight: Tensor) -> bool:
    """Whether a weight is an ordinary floating-point tensor, whose entries a contraction can read."""
    return type(weight) in (Tensor, nn.Parameter) and weight.is_floating_point()


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module is exactly an ``nn.Linear`` or a ``Conv1D``, with a dense weight."""
    return type(module) in LINEAR_CLASSES and is_dense(module.weight)


def describe(module: nn.Module) -> str:
    """The class of a module, and that of its weight if only this keeps it from being a plain linear."""
    of_class = type(module) in LINEAR_CLASSES and not is_dense(module.weight)
    return f"a {type(module).__name__}" + (f" with a weight of class {type(module.weight).__name__}" * of_class)


def features(base: nn.Module) -> tuple[int, int]:
    """(in, out)."""
    return (base.nx, base.nf) if isinstance(base, Conv1D) else (base.in_features, base.out_features)


def as_out_in(base: nn.Module, weight: Tensor) -> Tensor:
    """W (out, in) from the weight as ``base`` stores it, or the other way round."""
    return weight.T if isinstance(base, Conv1D) else weight


def keep_children(parent: nn.Module) -> None:
    """Let transformers not draw new weights for the children of a module when it loads the module's model.

    A parent with tensors of its own, such as a table of positions that is not saved, has these set there, too.
    """
    if not [*parent.parameters(recurse=False), *parent.buffers(recurse=False)]:
        parent._is_hf_initialized = True


def how_to_fix(module: nn.Module, if_quantised: str = "load the model without quantisation") -> str:
    """What to do about target modules that hold a ``module`` that is not a plain linear."""
    if isinstance(module, nn.Embedding):
        return "choose target_modules that are linears, or train the whole embedding with modules_to_save"
    if isinstance(module, LINEAR_CLASSES) or any(hasattr(module, name) for name in ("qweight", "W_q")):
        return f"leave it out with exclude_modules or, if it is quantised, {if_quantised}"
    return "leave it out with exclude_modules"


def check_linear(module: nn.Module, path: str) -> None:
    """Check that a module is a plain linear.

    Raises:
        TypeError: it is not.
    """
    if not is_plain_linear(module):
        raise TypeError(
            f"Key 'target_modules' must name linears of the class nn.Linear or Conv1D with dense weights; got "
            f"{describe(module)} at {path}: {how_to_fix(module)}."
        )
