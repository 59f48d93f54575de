"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751, figure 2), with projections of several linear forms.

    y' = y + up(activation(down(y)))        down (k, d_model), up (d_model, k)
                                            k = d_model / reduction_factor, or d_model * expansion_factor

    kind              projections                   parameters
    bottleneck        dense                         2 k d_model, and k + d_model of the biases
    low_rank          W = U V                       2 rank (k + d_model), and the biases
    phm, compacter    sums of Kronecker products    see ``adapters.kinds.compacter``
    tt_adapter        TT matrices                   those of the cores

``up`` starts at zero, so the adapter starts as the identity. It is not linear because of the activation, so it cannot
be merged. Each kind defines ``projection``, the linear form of down and up (``adapters.kinds.linear_forms``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
    """A dense bottleneck after each sublayer; Pfeiffer's adapter uses one sublayer, AdapterDrop some layers.

    Args:
        sublayers: the sublayers that it comes after.
        reduction_factor: k = d_model // reduction_factor; 32 by default.
        expansion_factor: k = d_model * expansion_factor instead.
        activation: an activation of transformers, such as "gelu_new", "relu" or "silu".
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
            given = f"{self.reduction_factor} with an expansion_factor of {self.expansion_factor}"
            self.refuse("reduction_factor", "excludes expansion_factor", given, "give one of the two")
        if self.reduction_factor is None and self.expansion_factor is None:
            self._set(reduction_factor=32)
        self.check_positive("reduction_factor", "32")
        self.check_positive("expansion_factor", "2")
        if self.activation not in ACT2FN:
            fix = nearest_name(self.activation, ACT2FN)
            self.refuse("activation", "must name an activation", repr(self.activation), fix)

    def width(self, d_model: int) -> int:
        """Return k, the features between the projections."""
        if self.expansion_factor is not None:
            return d_model * self.expansion_factor
        if self.reduction_factor > d_model:
            rule = f"must leave at least one of the {d_model} features"
            self.refuse("reduction_factor", rule, self.reduction_factor, f"use at most {d_model}")
        return d_model // self.reduction_factor

    def projection(self, in_features: int, out_features: int, up: bool) -> nn.Module:
        """Build a linear map (..., in) -> (..., out); ``up`` starts at zero, ``down`` does not."""
        return DenseLinear(in_features, out_features, zero=up)

    def build(self, in_features: int, out_features: int) -> Bottleneck:
        return self.bottleneck(in_features, out_features, self.projection)

    def bottleneck(self, in_features: int, out_features: int, projection: Callable[..., nn.Module]) -> Bottleneck:
        """Build the adapter of two projections, see ``projection``."""
        width = self.width(in_features)
        down = projection(in_features, width, up=False)
        up = projection(width, out_features, up=True)
        return self.module(down, ACT2FN[self.activation], up)


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(BottleneckConfig, kind="low_rank"):
    """A bottleneck after each sublayer whose projections are products of two thin matrices, with dense biases.

    Args:
        rank: the rank of the products, clipped to the largest useful one.
    """

    rank: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("rank", "1")

    def projection(self, in_features: int, out_features: int, up: bool) -> t3.TTLinear:
        return low_rank_linear(in_features, out_features, self.rank, zero=up)


@dataclass(frozen=True, kw_only=True)
class TensorTrainAdapterConfig(BottleneckConfig, TensorTrainFields, kind="tt_adapter"):
    """A bottleneck after each sublayer whose projections are TT matrices.

    ``raw_shape`` is that of ``down``, mirrored for ``up``.
    """

    module = TensorTrainAdapter
    supports_site_modes = False

    def projection(
        self, in_features: int, out_features: int, up: bool, shape_rank: int | Sequence[int] | None = None
    ) -> t3.TTLinear:
        return self.tt_linear(in_features, out_features, zero=up, mirrored=up, shape_rank=shape_rank)

    def build(
        self, in_features: int, out_features: int, shape_rank: int | Sequence[int] | None = None
    ) -> TensorTrainAdapter:
        """Build one adapter; ``shape_rank`` is the rank that "cheapest" shapes are chosen for, by default ``rank``."""
        return self.bottleneck(in_features, out_features, partial(self.projection, shape_rank=shape_rank))
