"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751, figure 2), with projections in any linear form.

    y' = y + up(activation(down(y)))        down (k, d_model), up (d_model, k),  k = d_model / reduction_factor
                                                                               or d_model * expansion_factor

    bottleneck          down and up dense                       2 k d_model numbers, and k + d_model of the biases
    low_rank            W = U V of a rank                       2 rank (k + d_model), and the biases
    phm, compacter      sums of Kronecker products              see ``adapters.kinds.compacter``
    tt_adapter          TT matrices                             those of the cores

``up`` starts at zero, so the adapter starts as the identity. The activation makes it non-linear: it cannot be merged.
A kind is its ``projection``: the linear form that down and up have (``adapters.kinds.linear_forms``).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

import t3nsor as t3
from adapters.configuration import AdapterConfig, SublayerKind
from adapters.kinds.linear_forms import DenseLinear, low_rank_linear
from adapters.tensor_train.fields import TensorTrainFields
from adapters.validation import nearest_name


class Bottleneck(nn.Module):
    """y (..., d_model) -> y + up(activation(down(y))), in the dtype of y, computed in float32 at least."""

    is_linear = False

    def __init__(self, down: nn.Module, activation: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.down = down
        self.activation = activation
        self.up = up

    def reset_parameters(self) -> None:
        self.down.reset_parameters()
        self.up.reset_parameters()

    def forward(self, y: Tensor) -> Tensor:
        wide = y.to(torch.promote_types(y.dtype, torch.float32))
        change = self.up(self.activation(self.down(wide)))  # (..., d_model) -> (..., k) -> (..., d_model)
        return y + change.to(y.dtype)


class TensorTrainAdapter(Bottleneck):
    """A bottleneck with TT projections: down (k, d_model) and up (d_model, k) are ``t3nsor.TTLinear``."""


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig(AdapterConfig, kind="bottleneck"):
    """A dense bottleneck after a sublayer; Pfeiffer's form has one sublayer, AdapterDrop's a choice of layers.

    Args:
        sublayers: after which sublayers it sits.
        reduction_factor: k = d_model // reduction_factor; 32 where neither factor is given.
        expansion_factor: k = d_model * expansion_factor instead.
        activation: a name that transformers knows, such as "gelu_new", "relu", "silu".
    """

    position = "after"
    module: ClassVar[type[Bottleneck]] = Bottleneck

    sublayers: tuple[SublayerKind, ...] = ("self_attention", "feed_forward")
    reduction_factor: int | None = None
    expansion_factor: int | None = None
    activation: str = "gelu_new"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction_factor is not None and self.expansion_factor is not None:
            given = f"{self.reduction_factor} beside an expansion_factor of {self.expansion_factor}"
            self.refuse("reduction_factor", "excludes expansion_factor", given, "give one of the two")
        if self.reduction_factor is None and self.expansion_factor is None:
            object.__setattr__(self, "reduction_factor", 32)
        for name in ("reduction_factor", "expansion_factor"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                self.refuse(name, "is a whole number from 1 on", getattr(self, name), "32 is usual for a reduction")
        if self.activation not in ACT2FN:
            self.refuse("activation", "names a function", repr(self.activation), nearest_name(self.activation, ACT2FN))

    def width(self, d_model: int) -> int:
        """k above."""
        if self.expansion_factor is not None:
            return d_model * self.expansion_factor
        if self.reduction_factor > d_model:
            rule = f"leaves at least one of the {d_model} features"
            self.refuse("reduction_factor", rule, self.reduction_factor, f"take at most {d_model}")
        return d_model // self.reduction_factor

    def projection(self, in_features: int, out_features: int, up: bool) -> nn.Module:
        """The linear form (..., in) -> (..., out); ``up`` starts at zero, ``down`` does not."""
        return DenseLinear(in_features, out_features, zero=up)

    def build(self, in_features: int, out_features: int) -> Bottleneck:
        width = self.width(in_features)
        down = self.projection(in_features, width, up=False)
        up = self.projection(width, out_features, up=True)
        return self.module(down, ACT2FN[self.activation], up)


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(BottleneckConfig, kind="low_rank"):
    """A bottleneck whose projections are products of two thin matrices, with dense biases.

    Args:
        rank: what the thin matrices have in common; cut to the largest useful one.
    """

    rank: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            self.refuse("rank", "is a whole number from 1 on", self.rank, "1 is usual")

    def projection(self, in_features: int, out_features: int, up: bool) -> t3.TTLinear:
        return low_rank_linear(in_features, out_features, self.rank, zero=up)


@dataclass(frozen=True, kw_only=True)
class TensorTrainAdapterConfig(BottleneckConfig, TensorTrainFields, kind="tt_adapter"):
    """A bottleneck whose projections are TT matrices; ``raw_shape`` is that of ``down``, mirrored for ``up``."""

    module = TensorTrainAdapter
    takes_site_modes = False

    def projection(self, in_features: int, out_features: int, up: bool) -> t3.TTLinear:
        return self.tt_linear(in_features, out_features, zero=up, mirrored=up)
