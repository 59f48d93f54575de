"""The linear layers of base models, and how each class stores its weight.

    class        y = W x + b, W (out, in)      weight
    nn.Linear    W                             (out, in)
    Conv1D       its transpose, as in GPT-2    (in, out)

A subclass of either may store or use its weight in another way, as quantised layers do, so it does not count as one.
"""

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

LINEAR_CLASSES = (nn.Linear, Conv1D)


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


def how_to_fix(module: nn.Module) -> str:
    """What to do about target modules that hold a ``module`` of a class other than ``LINEAR_CLASSES``."""
    if isinstance(module, nn.Embedding):
        return "choose target_modules that are linears, or train the whole embedding with modules_to_save"
    if isinstance(module, LINEAR_CLASSES) or any(hasattr(module, name) for name in ("qweight", "W_q")):
        return "leave it out with exclude_modules or, if it is quantised, load the model without quantisation"
    return "leave it out with exclude_modules"


def check_linear(module: nn.Module, path: str) -> None:
    """Check that a module can have deltas.

    Raises:
        TypeError: it is neither an ``nn.Linear`` nor a ``Conv1D``, or of a class derived from one.
    """
    if type(module) not in LINEAR_CLASSES:
        raise TypeError(
            f"Key 'target_modules' must name linears of the class nn.Linear or Conv1D; got a {type(module).__name__} "
            f"at {path}: {how_to_fix(module)}."
        )
