"""layer_norm, scale_norm and tt_layer_norm: a model's norms with weights of 0 to dim trainable parameters.

    y = w * x / rms(x)        x (..., dim),  w (dim,),  rms(x)^2 = mean(x^2) + eps; an nn.LayerNorm: see
                              ``adapters.base.norm_layers``

    kind                           w                             trainable parameters
    layer_norm, trainable=False    as pretrained                 0
    scale_norm                     g / sqrt(dim), constant       1    (Nguyen & Salazar 2019, arXiv:1910.05895, eq. 5)
    tt_layer_norm                  a TT vector of rank r         sum of r_{k-1} m_k r_k
    layer_norm, trainable=True     w itself                      dim, and dim more of a bias

A replaced norm keeps its pretrained weight, frozen, under the same name: merging writes the new w over it, unmerging
restores it. tt_layer_norm starts at the TT-SVD of the pretrained w (exact at full rank, an approximation below) or at
ones; scale_norm starts at the best constant approximation of the pretrained w, its mean.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import t3nsor as t3
from adapters.base.sharing import Scope
from adapters.base.sublayers import find_sublayers, select_sublayers
from adapters.configuration import AdapterConfig, as_lists
from adapters.freezing import model_parameters
from adapters.tensor_train import checks
from adapters.tensor_train.layer_shape import check_factors

NormSublayer = Literal["embedding", "self_attention", "cross_attention", "feed_forward", "final"]
EVERY_NORM = ("embedding", "self_attention", "cross_attention", "feed_forward", "final")


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig(AdapterConfig, kind="layer_norm"):
    """Train the model's own layer norms, or keep them frozen along with kinds that would train them.

    Args:
        sublayers: the sublayers whose norms it applies to; "embedding" is the norm
            after the embeddings, "final" the one at the end of a stack.
        trainable: whether they train.
    """

    position = "weights"

    sublayers: tuple[NormSublayer, ...] = EVERY_NORM
    trainable: bool = True

    def weights(self, model: nn.Module) -> dict[str, bool]:
        """Return, for each norm's weight and bias, whether it trains."""
        chosen = select_sublayers(self, find_sublayers(model))
        present = model_parameters(model)
        names = [f"{path}.{name}" for s in chosen for path in s.norms for name in ("weight", "bias")]
        return {name: self.trainable for name in names if name in present}


@dataclass(frozen=True, kw_only=True)
class ScaleNormConfig(AdapterConfig, kind="scale_norm"):
    """One trainable parameter instead of each layer norm's weight vector.

    Args:
        sublayers: the sublayers whose norm is replaced; "embedding" is the norm
            after the embeddings, "final" the one at the end of a stack.
    """

    position = "norm"

    sublayers: tuple[NormSublayer, ...] = EVERY_NORM

    def build(self, weight: Tensor, eps: float) -> "ScaleNorm":
        norm = ScaleNorm(weight.shape[0], eps=eps, dtype=torch.float32)
        norm.start_from(weight)
        return norm


@dataclass(frozen=True, kw_only=True)
class TensorTrainLayerNormConfig(AdapterConfig, kind="tt_layer_norm"):
    """A TT vector instead of each layer norm's weight vector.

    Args:
        sublayers: the sublayers whose norm is replaced; "embedding" is the norm
            after the embeddings, "final" the one at the end of a stack.
        rank: one TT rank for every bond (clipped to the largest useful one), or the list of the d - 1 interior ranks.
        d: the number of cores; by default that of raw_shape, or 3.
        raw_shape: (m_1, ..., m_d), the factors of dim; None for balanced ones.
        init: "pretrained" decomposes the pretrained weight, "ones" starts from scratch.
        frozen_cores: cores that keep their initial value.
        disabled_cores: cores fixed at E[a, i, 0, b] = 1 where a = b, so that w is constant along their factor of dim.
        shared_cores: cores that several norms share; the other cores are each norm's own.
        share_across: the scopes across which they are shared: "layers", "sublayers" or "tasks", see
            ``adapters.base.sharing``.

    A pretrained weight is decomposed over all cores of its norm, so ``disabled_cores`` and ``shared_cores`` need
    "ones".
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
            rule = "must be a list of positive factors"
            self.refuse("raw_shape", rule, list(self.raw_shape), "write for example [8, 8, 12]")
        checks.check_rank(self, "rank", self.rank)
        given = {"raw_shape": self.raw_shape and len(self.raw_shape)}
        self._set(d=checks.resolve_number_of_cores(self, given))
        checks.check_rank_list(self, t3.TensorTrain.free_bonds(self.d))
        self._set(**checks.resolve_core_lists(self))
        checks.check_sharing(self)
        for name, cores in (("disabled_cores", self.disabled_cores), ("shared_cores", self.shared_cores)):
            if cores and self.init != "ones":
                given = f"{list(cores)} with init={self.init!r}"
                self.refuse(name, 'needs "init": "ones"', given, "set it, or leave the cores out")

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        return dict.fromkeys(self.shared_cores, frozenset(self.share_across))

    def field_of_slot(self, slot: int | str) -> str:
        return "shared_cores"

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
            reason = str(error)
        else:
            norm.start_from(weight)
            return norm
        self.refuse("rank", f"must fit {weight.shape[0]} features", as_lists(self.rank), reason)


class ScaleNorm(t3.ScaleNorm):
    """x (..., dim) -> g x / ||x||, as the replacement of a norm."""

    is_linear = True

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Set g so that g / sqrt(dim) is the mean of ``weight`` (dim,), its best constant approximation."""
        self.g.copy_(weight.to(self.g.dtype).mean() * self.dim**0.5)

    def dense_weight(self) -> Tensor:
        """Return the weight vector, (dim,)."""
        return (self.g / self.dim**0.5).expand(self.dim)


class TensorTrainLayerNorm(t3.TTLayerNorm):
    """x (..., dim) -> w * x / rms(x), w a TT vector, as the replacement of a norm; options of ``t3.TTLayerNorm``."""

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
        """Return the weight vector, (dim,)."""
        return self.weight
