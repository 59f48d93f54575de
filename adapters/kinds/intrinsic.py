"""Intrinsic dimension, structure-aware (SAID; Aghajanyan et al. 2020, arXiv:2012.13255, section 3.2).

    W_i' = W_i + lambda_i P_i(theta),        i = 1..m over the linears of the chosen sublayers

    theta (dim - m,)    one vector for the whole model            lambda_i ()    one scale for each matrix
    P_i                 fixed random map, see ``adapters.kinds.fastfood``; P_i(theta) is read as a matrix (out, in)

theta starts at zero and lambda at one: at step 0 nothing changes, and theta has a gradient. E ||P_i(theta)||^2 is
||theta||^2. P is drawn from ``projection_seed``, neither saved nor trained, and takes 9 bytes for each weight (more
where a matrix has fewer numbers than theta); training keeps each dense change, 4 bytes a weight, until its gradient.
Embeddings and layer norms are left alone.
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
"""How many seeds torch's generator of the CPU tells apart."""


@dataclass(frozen=True, kw_only=True)
class IntrinsicSaidConfig(AdapterConfig, kind="intrinsic_said"):
    """All linears of the chosen sublayers, moved within one random subspace.

    Args:
        sublayers: whose linears.
        dim: trainable numbers in all, of which one is the scale of each matrix.
        projection_seed: of the random maps; with another one a checkpoint means another model.
    """

    position = "beside"

    sublayers: tuple[SublayerKind, ...] = ("self_attention", "cross_attention", "feed_forward")
    dim: int = 20_000
    projection_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim < 2:
            self.refuse("dim", "counts a scale for each matrix and what they share", self.dim, "20000 is usual")
        if not 0 <= self.projection_seed < SEEDS:
            given = self.projection_seed
            self.refuse("projection_seed", f"is a whole number from 0 to {SEEDS - 1}", given, "0 will do")

    def places(self, sublayers: list[Sublayer]) -> list[Place]:
        places = every_linear(self, sublayers)
        if self.dim <= len(places):
            rule = f"leaves at least one number beside the scales of the {len(places)} matrices"
            self.refuse("dim", rule, self.dim, f"take {len(places) + 1} or more, or fewer sublayers")
        return [replace(place, number=number, count=len(places)) for number, place in enumerate(places)]

    def shared_slots(self) -> dict[int | str, frozenset[Scope]]:
        return {"theta": frozenset({"layers", "sublayers", "projections"})}

    def build_at(self, place: Place, in_features: int, out_features: int) -> "IntrinsicDelta":
        generator = torch.Generator("cpu").manual_seed(self.projection_seed)
        seeds = torch.randint(SEEDS, (place.number + 1,), generator=generator, device="cpu")
        return IntrinsicDelta(in_features, out_features, self.dim - place.count, int(seeds[-1]))


class IntrinsicDelta(LinearDelta, Borrower):
    """The change alone: x (..., in) -> lambda P(theta) x (..., out); theta (dim,) and lambda () are float32."""

    shareable_names = ("theta",)

    def __init__(self, in_features: int, out_features: int, dim: int, seed: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.projection = Fastfood(out_features * in_features, dim, seed)
        self.theta = nn.Parameter(torch.empty(dim, dtype=torch.float32))
        self.scale = nn.Parameter(torch.empty((), dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero the subspace's coordinates, those that others share included, and set the scale to one."""
        nn.init.zeros_(self.live("theta"))
        nn.init.ones_(self.scale)

    def delta_weight(self) -> Tensor:
        """lambda P(theta), (out, in)."""
        return self.scale * self.projection(self.live("theta")).reshape(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.delta_weight().to(x.dtype))  # (..., in) x (out, in) -> (..., out)

    def extra_repr(self) -> str:
        dim, seed = self.projection.dim, self.projection.seed
        return f"{self.in_features}, {self.out_features}, dim={dim}, seed={seed}"
