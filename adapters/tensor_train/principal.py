"""PrincipalTensorTrainDelta: a TT delta initialized from the base weight (``"init": "principal"`` of tt_lora).

    y = W x + b + s (T x - T_0 x + c)        T (out, in) trains, T_0 keeps the initial value of T

T_0 is the TT-SVD (Oseledets 2011, algorithm 1; for a ring Zhao et al. 2016, algorithm 1) of W / s with the shape and
ranks of T, so that s T_0 is the principal part of W and training T changes it, like the factors in PiSSA (Meng et al.
2024, arXiv:2404.02948, eq. 2 to 4). PiSSA replaces W by W - s T_0; here T_0 is kept beside T, so that two equal
products are subtracted at step 0: the adapted model equals the base bit for bit, and W keeps its value and dtype. Both
products are much larger than their difference, so they are computed in float32 at least and the difference is rounded
once.
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
"""Formats that a dense matrix can be decomposed into."""


def check_principal(config: Any) -> None:
    """Raise ConfigurationError for fields that a principal initialization does not support."""
    start = f"with init={PRINCIPAL!r}"
    for key, value in (
        ("zero_core", config.zero_core),
        ("frozen_cores", list(config.frozen_cores)),
        ("disabled_cores", list(config.disabled_cores)),
        ("shared_cores", list(config.shared_cores)),
        ("core_activation", config.core_activation),
    ):
        if value not in (None, []):
            rule = "is not supported if all cores are the decomposition of one weight"
            config.refuse(key, rule, f"{value!r} {start}", "leave one of the two out")
    if has_sites(config.modes):
        rule = "must be without site modes if the cores are the decomposition of one weight"
        config.refuse("modes", rule, f"{list(config.modes)} {start}", "leave one of the two out")
    if config.format not in FORMATS:
        given = f"{config.format!r} {start}"
        config.refuse(
            "format", "must be one that a matrix can be decomposed into", given, f"use {' or '.join(FORMATS)}"
        )
    if config.scaling == 0:
        config.refuse("scaling", "must not be 0, as it divides the principal part", f"0 {start}", "1.0 is typical")


class PrincipalTensorTrainDelta(TensorTrainDelta):
    """The delta alone: x (..., in) -> s (T x - T_0 x + c) (..., out); ``origin`` holds T_0, frozen and saved."""

    fuses = False
    """T_0 is a second chain, so the delta is computed beside the frozen weight."""

    def __init__(self, linear: t3.TTLinear, origin: t3.TTLinear, scaling: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__(linear, scaling, dropout)
        self.origin = origin
        self._keep_origin()

    def reset_parameters(self) -> None:
        """Draw a random T = T_0; ``start_from`` gives the principal part."""
        super().reset_parameters()
        self._keep_origin()

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Set T and T_0 to the principal part of ``weight`` (out, in) over s, in float32.

        A weight on the meta device has no values yet: T = T_0 is random until the saved tensors are loaded.
        """
        self.reset_parameters()
        if not weight.is_meta:
            self.linear.set_weight(weight.to(torch.float32) / self.scaling)
            self._keep_origin()

    def delta_weight(self) -> Tensor:
        """Return s (T - T_0), (out, in)."""
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
    """Return the delta of a trainable layer T, with a frozen layer of the same shape and ranks for T_0."""
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
