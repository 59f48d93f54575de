"""A linear layer whose weight is a tensor network.

y = x W^T + b      x (..., in) -> y (..., out),   W = full() (out, in) from cores (r_{k-1}, m_k, n_k, r_k)

768 -> 3072 with d = 3 and rank 8: cores (1, 12, 8, 8), (8, 16, 8, 8), (8, 16, 12, 1), 10,496 instead of 2,359,296
parameters. With shape_mode="cheapest": cores (1, 96, 2, 8), (8, 32, 1, 8), (8, 1, 384, 1), 6,656 parameters.

Single cores, given by index, can be

    frozen      keeps its initial value: requires_grad is False
    disabled    held at the identity-like element E[a, i, j, b] = 1 if a = b and i = j, else 0, rectangular if
                r_{k-1} != r_k or m_k != n_k: its factors are passed through, truncated or zero-padded (so an outermost
                core, with r_0 = 1, passes rank index 0 of its bond, and the other indices have no effect; a ring of
                disabled cores only is r_0 times the identity)
    zero        initialised to zero, so that W = 0 exactly while this core has a gradient
    shared      read from elsewhere in the model: see `TTModule.share`
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bias import TTBias
from .cheap_shapes import layer_shape
from .contraction import check_plan, matmul
from .even_decomposition import even_cores
from .formats import Format
from .initializers import CONSTANTS, identity_
from .module import TTModule
from .shapes import check_product, check_raw_shape, index_below, positive_int
from .tensor_network import TensorNetwork

CORE_ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}


class TTLinear(TTModule):
    """y = x W^T + b with W a tensor network; a replacement for `nn.Linear`.

    Args:
        in_features, out_features: the last dimensions of x and y.
        bias: True or "dense" for a parameter (out,), "tt" for a `TTBias`, False or "none" for none; initially zero.
        d: the number of cores; used only if raw_shape is None.
        tt_rank: an int, clipped at each bond of a train to the largest useful rank, or a list: the d - 1 interior ranks
            of a train, an error if too large to be useful, or all its d + 1 as given, or the d ranks (r_0, ...,
            r_{d-1}) of a ring, or those of the d factors of "tucker". The rank of "cp" is one int, and not clipped.
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)), out factors first; by default chosen by shape_mode.
        shape_mode: how the sides are factorised, a mode of `tt_shape`, or "cheapest", see `cheapest_shape`; used only
            if raw_shape is None.
        frozen_cores, disabled_cores: indices of cores, negative ones from the end; see the head of this file.
        core_activation: "relu", "gelu", "silu", "tanh" or a callable (with f(0) = 0 if zero_core is used), applied
            between the cores; the layer then has no weight matrix, and `is_linear` is False.
        plan: "auto", "timed", or the name of a strategy; see `matmul`, also for dtypes: x may be bfloat16 with float32
            cores.
        init: as for `initialize_`. The other cores are drawn as if no core were disabled.
        zero_core: the index of the core that is initialised to zero, or None.
        format: a name in `FORMATS`: "tensor_train", "tensor_ring", "tensor_basis", "cp" or "tucker" (without support
            for disabled cores); or a format with its parameters, such as `TensorBasisFormat(basis_size=8)`.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range, or two of them exclude each other.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool | str = True,
        d: int = 3,
        tt_rank: int | Sequence[int] = 8,
        raw_shape: Sequence[Sequence[int]] | None = None,
        shape_mode: str = "ascending",
        frozen_cores: Iterable[int] = (),
        disabled_cores: Iterable[int] = (),
        core_activation: str | Callable[[Tensor], Tensor] | None = None,
        plan: str = "auto",
        init: str | float = "glorot",
        zero_core: int | None = None,
        format: str | Format = "tensor_train",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        in_features = positive_int(in_features, "in_features")
        out_features = positive_int(out_features, "out_features")
        if raw_shape is None:
            raw_shape = layer_shape(in_features, out_features, d, tt_rank, shape_mode)
        raw_shape = check_raw_shape(raw_shape)
        check_product(raw_shape[0], out_features, "out_features")
        check_product(raw_shape[1], in_features, "in_features")
        super().__init__(raw_shape, tt_rank, device, dtype, frozen_cores, disabled_cores, format)
        self.in_features, self.out_features = in_features, out_features
        self.core_activation, self.plan, self.init = _check_activation(core_activation), plan, init
        self.plan = check_plan(plan, len(self.core_shapes), self._activation())
        self.zero_core = None if zero_core is None else index_below(zero_core, len(self.core_shapes), "zero_core")
        self._check_zero_core()
        self.bias = self._make_bias(bias, device, dtype)
        self.reset_parameters()

    @property
    def is_linear(self) -> bool:
        """Whether the layer is a matrix plus a bias and can be merged into a dense weight."""
        return self.core_activation is None

    @torch.no_grad()
    def set_weight(self, dense: Tensor) -> None:
        """Set the cores in place to the decomposition of a matrix (out, in) at the layer's shape and ranks.

        It is the TT-SVD, or the TR-SVD for a ring, computed in the dtype of the matrix, in float32 at least: the
        nearest matrix of these ranks for d = 2, and within a factor sqrt(d - 1) of the best error in a train (Oseledets
        2011, corollary 2.4). The singular values of a bond are split evenly over its two cores, see `even_cores`.

        Raises:
            TypeError: dense is not a floating-point tensor.
            ValueError: it has another shape, holds a NaN or an infinity, or is on the meta device; or the layer has
                activations between its cores, is on the meta device, has a format whose cores are not Parameters, or
                has frozen, disabled or shared cores.
        """
        self._check_settable()
        if isinstance(dense, Tensor) and dense.shape != (self.out_features, self.in_features):
            raise ValueError(
                f"The matrix must have the shape ({self.out_features}, {self.in_features}) of the layer; got "
                f"{tuple(dense.shape)}: pass the weight of a linear of that size."
            )
        for core, value in zip(self.cores, even_cores(dense, self.core_shapes), strict=True):
            core.copy_(value)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new initial values in place, including those of shared cores."""
        self._draw(self.init, -1 if self.zero_core is None else self.zero_core)
        cores = self.live_cores()
        for k in self.disabled_cores:
            identity_(cores[k])
        if self.zero_core is not None:
            self.cores.zero(self.zero_core)
        if isinstance(self.bias, TTBias):
            self.bias.reset_parameters()
        elif self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return y, (..., in) -> (..., out), in the dtype of `matmul`."""
        return matmul(x, super().network(), self.plan, self._activation(), bias=self.full_bias())

    def full_bias(self) -> Tensor | None:
        """Return the bias (out,), differentiable in its parameters, or None."""
        return self.bias.full() if isinstance(self.bias, TTBias) else self.bias

    def network(self) -> TensorNetwork:
        """Return the weight as a network over the live parameters; ValueError if the layer is not linear."""
        if not self.is_linear:
            raise ValueError(
                "Only a linear layer has a weight matrix and can be merged; got core_activation="
                f"{self.core_activation!r}: build the layer with core_activation=None."
            )
        return super().network()

    def extra_repr(self) -> str:
        sizes = f"{self.in_features}, {self.out_features}"
        return f"{sizes}, raw_shape={self.raw_shape}, ranks={self.ranks}, format={self.format!r}, plan={self.plan!r}"

    def _activation(self) -> Callable[[Tensor], Tensor] | None:
        return CORE_ACTIVATIONS.get(self.core_activation, self.core_activation)

    def _check_settable(self) -> None:
        unsupported = {
            "core_activation": self.core_activation,
            "format": None if self.cores.are_parameters else self.format,
            "frozen_cores": self.frozen_cores,
            "disabled_cores": self.disabled_cores,
            "shared cores": [k for k in range(len(self.cores)) if self.cores.is_shared(k)],
            "device": "meta" if any(core.is_meta for core in self.cores.parameters()) else None,
        }
        for name, value in unsupported.items():
            if value:
                raise ValueError(
                    "set_weight needs a linear layer whose cores are all trainable Parameters of its own that hold "
                    f"values; got {name} = {value!r}: build a layer without it."
                )

    def _check_zero_core(self) -> None:
        if self.zero_core in (*self.frozen_cores, *self.disabled_cores):
            raise ValueError(
                "The zero core must be trainable, or the weight would stay zero; got zero_core = "
                f"{self.zero_core}, which is frozen or disabled: choose another core."
            )
        if self.zero_core is not None and self.init in tuple(CONSTANTS):
            raise ValueError(
                "A zero core makes the whole weight zero and excludes a constant init; got "
                f"init={self.init!r} and zero_core = {self.zero_core}: use a random init with zero_core."
            )

    def _make_bias(
        self, bias: bool | str, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> nn.Parameter | TTBias | None:
        if bias is False or bias == "none":
            return None
        if bias is True or bias == "dense":
            return nn.Parameter(torch.empty(self.out_features, device=device, dtype=dtype))
        if bias == "tt":
            return TTBias(self.out_features, len(self.core_shapes), max(self.ranks), device=device, dtype=dtype)
        raise ValueError(f"bias must be True, False, 'dense', 'tt' or 'none'; got {bias!r}: choose one of them.")


def _check_activation(activation: str | Callable[[Tensor], Tensor] | None) -> str | Callable[[Tensor], Tensor] | None:
    known = activation in CORE_ACTIVATIONS if isinstance(activation, str) else callable(activation)
    if activation is not None and not known:
        raise ValueError(
            f"core_activation must be one of {', '.join(CORE_ACTIVATIONS)}, a callable or None; "
            f"got {activation!r}: choose one of them."
        )
    return activation
