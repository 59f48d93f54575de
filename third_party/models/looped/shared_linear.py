"""SharedLinear: one weight for several depths of a model, with a delta, a bias and a place in the state for each.

y = W x + T_l x + b_l          x (..., in) -> y (..., out)

W (out, in)     of the first depth that shares it, its owner; the others read it there, so it is stored once
T_l (out, in)   a tensor network of depth l, or none
b_l (out,)      the bias of depth l, or none
"""

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import t3nsor as t3
from adapters.base.linear_layers import features


class SharedLinear(nn.Module):
    """A linear at one of the depths that share its weight.

    Args:
        linear: the ``nn.Linear`` or ``Conv1D`` that it takes the place of; the owner takes over its weight, too.
        owner: the one that holds the weight; None if it is this one.
        delta: T of this depth; None for none.
    """

    def __init__(self, linear: nn.Module, owner: "SharedLinear | None", delta: t3.TTLinear | None) -> None:
        super().__init__()
        self.in_features, self.out_features = features(linear)
        self.is_transposed = isinstance(linear, Conv1D)
        if owner is None:
            self.weight = linear.weight
        self.bias = linear.bias
        self.delta = delta
        self._owner = None if owner is None else (owner,)  # in a tuple, as its parameters are not those of this module
        self.train(linear.training)

    def shared_weight(self) -> Tensor:
        """W (out, in)."""
        weight = (self if self._owner is None else self._owner[0]).weight
        return weight.T if self.is_transposed else weight

    def forward(self, x: Tensor) -> Tensor:
        if self.delta is None:
            return F.linear(x, self.shared_weight(), self.bias)
        return t3.matmul(x, self.delta.network(), self.delta.plan, weight=self.shared_weight(), bias=self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, owner={self._owner is None}"
