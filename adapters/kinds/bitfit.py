"""bitfit: train biases only (Ben Zaken et al. 2021, arXiv:2106.10199, section 3).

    linear        y = W x + b + c           c (out,)
    layer norm    y = w * x / rms(x) + c    c (dim,)
    lm_head       logits = W h + c          c (vocabulary,)

Where the base has a bias b, c is a change of it; T5 has none, so there c is a new bias. It starts at zero. Merging
writes it into the bias and leaves the weight alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapters.base.linear_delta import LinearDelta
from adapters.base.places import Place, every_linear, norms
from adapters.base.sublayers import LM_HEAD, Sublayer
from adapters.configuration import AdapterConfig, SublayerKind


@dataclass(frozen=True, kw_only=True)
class BitFitConfig(AdapterConfig, kind="bitfit"):
    """A bias for each linear and norm of the chosen sublayers, and for the output projection.

    The final norms of the stacks get none.

    Args:
        sublayers: the sublayers whose linears and norm get a bias.
        lm_head: whether the output projection gets one, independently of stacks and layers; None if the model has one.
    """

    position = "beside"

    sublayers: tuple[SublayerKind, ...] = ("self_attention", "cross_attention", "feed_forward")
    lm_head: bool | None = None

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        shifts = [Place(norm.path, "shift", norm.sublayer) for norm in norms(self, sublayers)]
        return [*every_linear(self, sublayers), *shifts, *(self._head(sublayers) if self.lm_head is not False else [])]

    def build(self, in_features: int, out_features: int) -> "Bias":
        return Bias(out_features)

    def _head(self, sublayers: list[Sublayer]) -> list[Place]:
        places = [Place(s.linears[LM_HEAD], "beside", s, LM_HEAD) for s in sublayers if LM_HEAD in s.linears]
        if self.lm_head and not places:
            self.refuse("lm_head", "needs an output projection", "true for a model without one", "write false")
        return places


class Bias(LinearDelta):
    """A vector (features,), float32, added to the output of a linear or a norm; zero at the start."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(features, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.bias)

    def delta_bias(self) -> Tensor:
        """Return the vector, (features,)."""
        return self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.bias  # (features,), for any x
