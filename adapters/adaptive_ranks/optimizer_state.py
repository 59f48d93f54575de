"""What an optimizer remembers of a core, carried along when the core changes its gauge or its ranks.

    means of gradients            as a gradient, g' = Q^T g P^T        Adam's first moment, SGD's momentum
    means of squared gradients    by the squares of the same maps      Adam's second moment, sums of Adagrad

See ``t3nsor.gauge`` for how exact that is. Numbers that come new with a rank that grows start with the mean 0 and with
the mean of their core's squares, so that their first steps are as large as those of the others.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from adapters.validation import ConfigurationError
from t3nsor.gauge import Gauge

MEANS = ("exp_avg", "momentum_buffer", "grad_avg")
SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")


def state_of(optimizer: torch.optim.Optimizer | None) -> dict[Tensor, dict[str, Any]]:
    """The state by Parameter of an optimizer, or of the one inside a wrapper of it; nothing where there is none."""
    return {} if optimizer is None else getattr(optimizer, "optimizer", optimizer).state


def check_state(optimizer: torch.optim.Optimizer | None, cores: Iterable[Tensor]) -> None:
    """Refuse what an optimizer remembers and nothing here can carry along.

    Raises:
        ConfigurationError: it keeps of a core a tensor of a name that is not known, which is said, or of any Parameter
            one that is neither a number nor of its size, and so may be of several.
    """
    state, cores = state_of(optimizer), set(cores)
    for parameter, kept in state.items():
        for name, value in kept.items():
            if not isinstance(value, Tensor) or value.numel() <= 1:
                continue
            given = f"got {name!r} of shape {tuple(value.shape)}: take Adam, AdamW, SGD, RMSprop or Adagrad."
            if parameter in cores and name not in (*MEANS, *SQUARES):
                raise ConfigurationError(
                    f"An optimizer whose state can follow a change of ranks keeps of a core {', '.join(MEANS)} or "
                    f"{', '.join(SQUARES)}; {given}"
                )
            if value.numel() != parameter.numel():
                raise ConfigurationError(
                    "An optimizer whose state can follow a change of ranks keeps of each Parameter tensors of its own "
                    f"size, here {tuple(parameter.shape)}; {given}"
                )


def carry(state: dict[str, Any], k: int, gauge: Gauge) -> dict[str, Any]:
    """The state of core k after a change of gauge, in the dtypes that it has; checked before by ``check_state``."""
    carried = dict(state)
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.shape == ():
            continue
        if name in MEANS:
            carried[name] = gauge.gradient(k, value).to(value.dtype)
        elif name in SQUARES:
            new = gauge.squared_gradient(k, value)
            if new.numel() > value.numel():
                new = _filled(new, value)
            carried[name] = new.to(value.dtype)
    return carried


def _filled(new: Tensor, old: Tensor) -> Tensor:
    """``new`` (r + a, m, n, s + b) with the mean of ``old`` (r, m, n, s) wherever it has no number of its own."""
    filled = torch.full_like(new, old.mean())
    r, s = old.shape[0], old.shape[3]
    filled[:r, :, :, :s] = new[:r, :, :, :s]
    return filled
