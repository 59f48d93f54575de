"""The linears of a base model that take deltas, and how each keeps its weight.

    class        y = W x + b, W (out, in)      weight
    nn.Linear    W                             (out, in)
    Conv1D       its transpose, as in GPT-2    (in, out)

A subclass of either may keep or use its weight in another way, as quantised layers do, so it is not one of them.
"""

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def features(base: nn.Module) -> tuple[int, int]:
    """(in, out)."""
    return (base.nx, base.nf) if type(base) is Conv1D else (base.in_features, base.out_features)


def as_out_in(base: nn.Module, weight: Tensor) -> Tensor:
    """W (out, in) from the weight as ``base`` keeps it, or back."""
    return weight.T if type(base) is Conv1D else weight


def check_linear(module: nn.Module, path: str) -> None:
    """Refuse what takes no delta.

    Raises:
        TypeError: the module is neither an ``nn.Linear`` nor a ``Conv1D``, or of a class derived from one.
    """
    if type(module) in (nn.Linear, Conv1D):
        return
    mend = "leave it out by exclude_modules"
    if isinstance(module, nn.Embedding):
        mend = "take target_modules that are linears, or let it train as a whole by modules_to_save"
    elif isinstance(module, nn.Linear) or any(hasattr(module, name) for name in ("qweight", "W_q")):
        mend += ", or load the model without quantisation"
    raise TypeError(
        f"Key 'target_modules' names linears of the class nn.Linear or Conv1D; got a {type(module).__name__} "
        f"at {path}: {mend}."
    )
