"""A TT delta that starts from the principal part of the weight it stands beside (``"init": "principal"`` of tt_lora).

    y = W x + b + s (T x - T_0 x + c)        T (out, in) trains, T_0 keeps the value that T starts with

T_0 is the TT-SVD (Oseledets 2011, algorithm 1; of a ring Zhao et al. 2016, algorithm 1) of W / s at the shape and the
ranks of T, so that s T_0 is the principal part of W and T moves it, as the factors do in PiSSA (Meng et al. 2024,
arXiv:2404.02948, eq. 2 to 4). There W is replaced by W - s T_0; here T_0 stays beside T, and at step 0 two equal
products are subtracted, so that the adapted model is the base, bit for bit, and W keeps its value and dtype. The two
are much larger than their difference: both are computed in float32 at least, and the difference is rounded once.
"""

from typing import Any

import torch
from torch import Tensor

import t3nsor as t3
from adapters.base.linear_delta import LinearDelta
from adapters.tensor_train.delta import TensorTrainDelta
from adapters.tensor_train.modes import has_sites
from t3nsor.contraction.precision import autocast_dtype, autocast_off

PRINCIPAL = "principal"
FORMATS = ("tensor_train", "tensor_ring")
"""Those that a dense matrix can be decomposed into."""


def check_principal(config: Any) -> None:
    """Refuse what a start from the weight's principal part excludes."""
    start = f"beside init={PRINCIPAL!r}"
    for key, value in (
        ("zero_core", config.zero_core),
        ("frozen_cores", list(config.frozen_cores)),
        ("disabled_cores", list(config.disabled_cores)),
        ("shared_cores", list(config.shared_cores)),
        ("core_activation", config.core_activation),
    ):
        if value not in (None, []):
            rule = "is left out where all cores are the decomposition of one weight"
            config.refuse(key, rule, f"{value!r} {start}", "leave one of the two out")
    if has_sites(config.modes):
        config.refuse("modes", "of sites make one tensor of many weights", f"{list(config.modes)} {start}", "drop one")
    if config.format not in FORMATS:
        given = f"{config.format!r} {start}"
        config.refuse("format", "is one that a matrix is decomposed into", given, f"take {' or '.join(FORMATS)}")
    if config.scaling == 0:
        config.refuse("scaling", "divides the principal part, and is not 0", f"0 {start}", "1.0 is usual")


class PrincipalTensorTrainDelta(TensorTrainDelta):
    """The change alone: x (..., in) -> s (T x - T_0 x + c) (..., out); ``origin`` holds T_0, frozen and saved."""

    fuses = False
    """T_0 is a second chain, so the change is computed beside the frozen weight."""

    def __init__(self, linear: t3.TTLinear, origin: t3.TTLinear, scaling: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__(linear, scaling, dropout)
        self.origin = origin
        self._keep_origin()

    def reset_parameters(self) -> None:
        """Start at random, with T = T_0; ``start_from`` is the start that is meant."""
        super().reset_parameters()
        self._keep_origin()

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Set T and T_0 to the principal part of ``weight`` (out, in) over s, in float32; on the meta device wait."""
        self.reset_parameters()
        if not weight.is_meta:
            self.linear.set_weight(weight.to(torch.float32) / self.scaling)
            self._keep_origin()

    def delta_weight(self) -> Tensor:
        """s (T - T_0), (out, in)."""
        return self.scaling * (self.linear.full() - self.origin.full())

    added_to = LinearDelta.added_to

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x)
        dtype = autocast_dtype(x) or x.dtype
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        with autocast_off(x.device.type):
            change = t3.matmul(wide, self.linear.network(), self.linear.plan)  # (..., in) -> (..., out)
            change = change - t3.matmul(wide, self.origin.network(), self.linear.plan)
            bias = self.linear.full_bias()
            return (self.scaling * (change if bias is None else change + bias)).to(dtype)

    @torch.no_grad()
    def _keep_origin(self) -> None:
        for kept, core in zip(self.origin.cores, self.linear.cores, strict=True):
            kept.copy_(core)


def principal_delta(linear: t3.TTLinear, scaling: float, dropout: float) -> PrincipalTensorTrainDelta:
    """The delta of a trained layer T, with a frozen layer of the same shape and ranks for T_0."""
    d = len(linear.core_shapes)
    origin = t3.TTLinear(
        linear.in_features,
        linear.out_features,
        bias=False,
        tt_rank=[linear.ranks[k] for k in t3.FORMATS[linear.format].free_bonds(d)],
        raw_shape=linear.raw_shape,
        frozen_cores=range(d),
        plan=linear.plan,
        format=linear.format,
        dtype=torch.float32,
    )
    return PrincipalTensorTrainDelta(linear, origin, scaling, dropout)
