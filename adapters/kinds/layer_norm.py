"""The layer-norm family: T5's norm is x / rms(x) times a weight vector, and the kinds differ in how w is made.

    x (..., dim),  rms(x)^2 = mean(x^2) + eps,      y = w * x / rms(x)

    layer_norm, trainable=False    w as pretrained                                0 trainable numbers
    scale_norm                     w = g / sqrt(dim) for every feature            1     (Nguyen & Salazar 2019, eq. 5)
    tt_layer_norm                  w = a TT vector of rank r                      sum of r_{k-1} m_k r_k
    layer_norm, trainable=True     w itself                                       dim

A replaced norm keeps its pretrained weight, frozen, under the same name; merging writes the new w over it and unmerging
puts the old one back. tt_layer_norm starts as the TT-SVD of the pretrained w (equal to it at full rank, near it below)
or at ones; scale_norm starts at the g nearest to the pretrained w, its mean.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.base.sharing import Scope
from adapters.base.sublayers import find_sublayers, select_sublayers
from adapters.configuration import AdapterConfig
from adapters.tensor_train.checks import check_cores, check_factors, check_sharing, resolve_shape
from adapters.validation import ConfigurationError

NormSublayer = Literal["self_attention", "cross_attention", "feed_forward", "final"]
EVERY_NORM = ("self_attention", "cross_attention", "feed_forward", "final")


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig(AdapterConfig, kind="layer_norm"):
    """Train the model's own layer norms, or say that they stay frozen.

    Args:
        sublayers: whose norm; "final" is the one at the end of a stack.
        trainable: whether they train.
    """

    position = "weights"

    sublayers: tuple[NormSublayer, ...] = EVERY_NORM
    trainable: bool = True

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """The parameters this kind decides about, and whether they train."""
        chosen = select_sublayers(self, find_sublayers(model))
        return {f"{sublayer.norm}.weight": self.trainable for sublayer in chosen}


@dataclass(frozen=True, kw_only=True)
class ScaleNormConfig(AdapterConfig, kind="scale_norm"):
    """One trained number in place of each weight vector.

    Args:
        sublayers: whose norm; "final" is the one at the end of a stack.
    """

    position = "norm"

    sublayers: tuple[NormSublayer, ...] = EVERY_NORM

    def build(self, weight: Tensor, eps: float) -> "ScaleNorm":
        norm = ScaleNorm(weight.shape[0], eps=eps, dtype=torch.float32)
        norm.start_from(weight)
        return norm


@dataclass(frozen=True, kw_only=True)
class TensorTrainLayerNormConfig(AdapterConfig, kind="tt_layer_norm"):
    """A TT vector in place of each weight vector.

    Args:
        sublayers: whose norm; "final" is the one at the end of a stack.
        rank: one TT rank for every bond (cut to the largest useful one), or the list of the d - 1 interior ranks.
        d: number of cores; 3 where neither it nor raw_shape is given.
        raw_shape: (m_1, ..., m_d), factors of dim; None to choose balanced ones.
        init: "pretrained" decomposes the weight that is there, "ones" starts from scratch.
        frozen_cores: cores that keep their initial value.
        disabled_cores: cores held at E[a, i, 0, b] = 1 where a = b, so that w is constant along their factor of dim.
        shared_cores: cores that several norms have in common; the others are each norm's own.
        share_across: what those norms differ in: "layers", "sublayers" or "tasks", see ``adapters.base.sharing``.

    A pretrained weight is decomposed into cores of its own, so ``disabled_cores`` and ``shared_cores`` take "ones".
    """

    position = "norm"

    sublayers: tuple[NormSublayer, ...] = EVERY_NORM
    rank: int | tuple[int, ...] = 4
    d: int | None = None
    raw_shape: tuple[int, ...] | None = None
    init: Literal["pretrained", "ones"] = "pretrained"
    frozen_cores: tuple[int, ...] = ()
    disabled_cores: tuple[int, ...] = ()
    shared_cores: tuple[int, ...] = ()
    share_across: tuple[Literal["layers", "sublayers", "tasks"], ...] = ("layers",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.raw_shape is not None and (not self.raw_shape or min(self.raw_shape) < 1):
            given = list(self.raw_shape)
            self.refuse("raw_shape", "takes factors of at least 1", given, "write for example [8, 8, 12]")
        resolve_shape(self, None if self.raw_shape is None else len(self.raw_shape))
        check_cores(self)
        check_sharing(self)
        for name in ("disabled_cores", "shared_cores"):
            if getattr(self, name) and self.init != "ones":
                self.refuse(name, "takes a start from ones", f"init={self.init!r}", 'write "init": "ones"')

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        return dict.fromkeys(self.shared_cores, frozenset(self.share_across))

    def build(self, weight: Tensor, eps: float) -> "TensorTrainLayerNorm":
        if self.raw_shape is not None:
            check_factors(self, self.raw_shape, weight.shape[0], "weight")
        try:
            norm = TensorTrainLayerNorm(
                weight.shape[0],
                from_scratch=self.init == "ones",
                d=self.d,
                tt_rank=self.rank if isinstance(self.rank, int) else list(self.rank),
                raw_shape=self.raw_shape,
                eps=eps,
                frozen_cores=self.frozen_cores,
                disabled_cores=self.disabled_cores,
                dtype=torch.float32,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"Key 'rank' of adapter kind {self.kind!r} does not fit {weight.shape[0]} features: {error}"
            ) from error
        norm.start_from(weight)
        return norm


class ScaleNorm(t3.ScaleNorm):
    """x (..., dim) -> g x / ||x||, as an adapter of a norm."""

    is_linear = True

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Set g so that the weight vector g / sqrt(dim) is the constant nearest to ``weight`` (dim,), its mean."""
        self.g.copy_(weight.to(self.g.dtype).mean() * self.dim**0.5)

    def dense_weight(self) -> Tensor:
        """The weight vector, (dim,)."""
        return (self.g / self.dim**0.5).expand(self.dim)


class TensorTrainLayerNorm(t3.TTLayerNorm):
    """x (..., dim) -> w * x / rms(x) with w a TT vector, as an adapter of a norm; options as for ``t3.TTLayerNorm``."""

    is_linear = True

    def __init__(self, dim: int, from_scratch: bool = False, **options: Any) -> None:
        super().__init__(dim, **options)
        self.from_scratch = from_scratch

    def start_from(self, weight: Tensor) -> None:
        """Set the cores to the TT-SVD of ``weight`` (dim,), or to ones."""
        if self.from_scratch or weight.is_meta:
            self.reset_parameters()
        else:
            self.decompose_(weight)

    def dense_weight(self) -> Tensor:
        """The weight vector, (dim,)."""
        return self.weight
