"""intrinsic_said: structure-aware intrinsic dimension (Aghajanyan et al. 2020, arXiv:2012.13255, section 3.2).

    W_i' = W_i + lambda_i P_i(theta),        i = 1..m over the linears of the chosen sublayers

    theta (dim - m,)    one vector for the whole model            lambda_i ()    one scale per matrix
    P_i                 fixed random map, see ``adapters.kinds.fastfood``; P_i(theta) is reshaped to (out, in)

theta starts at zero and lambda at one: step 0 equals the base model, and theta has a gradient. E ||P_i(theta)||^2 is
||theta||^2. P is drawn from ``projection_seed``, neither saved nor trained, and takes 9 bytes per weight (more if a
matrix has fewer weights than theta); training keeps each dense delta, 4 bytes per weight, until its gradient is
computed. Embeddings and layer norms are not changed.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.base.linear_delta import LinearDelta
from adapters.base.places import Place, every_linear
from adapters.base.sharing import Borrower, Scope
from adapters.base.sublayers import Sublayer
from adapters.configuration import AdapterConfig, SublayerKind
from adapters.kinds.fastfood import Fastfood

SEEDS = 2**32
"""The number of different seeds of torch's CPU generator."""


@dataclass(frozen=True, kw_only=True)
class IntrinsicSaidConfig(AdapterConfig, kind="intrinsic_said"):
    """A delta of all linears of the chosen sublayers within one random subspace.

    Args:
        sublayers: the sublayers whose linears are adapted.
        dim: the number of trainable parameters, including one scale per matrix.
        projection_seed: seed of the random maps; a checkpoint is valid only with its own seed.
    """

    position = "beside"

    sublayers: tuple[SublayerKind, ...] = ("self_attention", "cross_attention", "feed_forward")
    dim: int = 20_000
    projection_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim < 2:
            rule = "must be at least 2, for a scale and a shared vector"
            self.refuse("dim", rule, self.dim, "20000 is typical")
        if not 0 <= self.projection_seed < SEEDS:
            rule = f"must be an integer from 0 to {SEEDS - 1}"
            self.refuse("projection_seed", rule, self.projection_seed, "use for example 0")

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        places = every_linear(self, sublayers)
        if self.dim <= len(places):
            rule = f"must exceed the number of scales, one for each of the {len(places)} matrices"
            self.refuse("dim", rule, self.dim, f"use {len(places) + 1} or more, or fewer sublayers")
        return [replace(place, number=number, count=len(places)) for number, place in enumerate(places)]

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        return {"theta": frozenset({"layers", "sublayers", "projections"})}

    def build_at(self, place: Place, in_features: int, out_features: int) -> "IntrinsicDelta":
        generator = torch.Generator("cpu").manual_seed(self.projection_seed)
        seeds = torch.randint(SEEDS, (place.number + 1,), generator=generator, device="cpu")
        return IntrinsicDelta(in_features, out_features, self.dim - place.count, int(seeds[-1]))


class IntrinsicDelta(LinearDelta, Borrower):
    """The delta alone: x (..., in) -> lambda P(theta) x (..., out); theta (dim,) and lambda () are float32."""

    shareable_names = ("theta",)

    def __init__(self, in_features: int, out_features: int, dim: int, seed: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.projection = Fastfood(out_features * in_features, dim, seed)
        self.theta = nn.Parameter(torch.empty(dim, dtype=torch.float32))
        self.scale = nn.Parameter(torch.empty((), dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set theta, which other deltas may share, to zero and the scale to one."""
        nn.init.zeros_(self.live("theta"))
        nn.init.ones_(self.scale)

    def delta_weight(self) -> Tensor:
        """Return lambda P(theta), (out, in)."""
        return self.scale * self.projection(self.live("theta")).reshape(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.delta_weight().to(x.dtype))  # (..., in) x (out, in) -> (..., out)

    def extra_repr(self) -> str:
        dim, seed = self.projection.dim, self.projection.seed
        return f"{self.in_features}, {self.out_features}, dim={dim}, seed={seed}"
