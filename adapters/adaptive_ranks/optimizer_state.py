"""Transform the optimizer state of a core when its gauge or its ranks change.

    means of gradients            as a gradient, g' = Q^T g P^T        Adam's first moment, SGD's momentum
    means of squared gradients    by the squares of the same maps      Adam's second moment, sums of Adagrad

See ``t3nsor.gauge`` for the accuracy. New parameters of a growing rank start with mean 0 and with the average squared
gradient of their core, so that their first steps are as large as those of the others.
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
    """Return the state by Parameter of an optimizer, also inside a wrapper; empty without an optimizer."""
    return {} if optimizer is None else getattr(optimizer, "optimizer", optimizer).state


def check_state(optimizer: torch.optim.Optimizer | None, cores: Iterable[Tensor]) -> None:
    """Check that the state of an optimizer can be transformed.

    Raises:
        ConfigurationError: a core has a state tensor of an unknown name, or a Parameter has one that is neither a
            scalar nor of its own size, and so may belong to several Parameters.
    """
    state, cores = state_of(optimizer), set(cores)
    for parameter, kept in state.items():
        for name, value in kept.items():
            if not isinstance(value, Tensor) or value.numel() <= 1:
                continue
            given = f"got {name!r} of shape {tuple(value.shape)}: use Adam, AdamW, SGD, RMSprop or Adagrad."
            if parameter in cores and name not in (*MEANS, *SQUARES):
                raise ConfigurationError(
                    f"A change of ranks transforms the optimizer states {', '.join(MEANS)} and {', '.join(SQUARES)}; "
                    f"{given}"
                )
            if value.numel() != parameter.numel():
                raise ConfigurationError(
                    "A change of ranks transforms optimizer states of the size of their Parameter, here "
                    f"{tuple(parameter.shape)}; {given}"
                )


def transform_state(state: dict[str, Any], k: int, gauge: Gauge) -> dict[str, Any]:
    """Return the state of core k after a change of gauge, in its dtypes; ``check_state`` comes first."""
    new_state = dict(state)
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.shape == ():
            continue
        if name in MEANS:
            new_state[name] = gauge.gradient(k, value).to(value.dtype)
        elif name in SQUARES:
            new = gauge.squared_gradient(k, value)
            if new.numel() > value.numel():
                new = _filled(new, value)
            new_state[name] = new.to(value.dtype)
    return new_state


def _filled(new: Tensor, old: Tensor) -> Tensor:
    """Return ``new`` (r + a, m, n, s + b) with the mean of ``old`` (r, m, n, s) in all new entries."""
    filled = torch.full_like(new, old.mean())
    r, s = old.shape[0], old.shape[3]
    filled[:r, :, :, :s] = new[:r, :, :, :s]
    return filled
