"""A linear layer whose weight is a tensor network: a train, a ring, or what is read as a train.

y = x W^T + b      x (..., in) -> y (..., out),   W = full() (out, in) from cores (r_{k-1}, m_k, n_k, r_k)

Four things may be asked of single cores, by index:

    frozen      keeps its start value: requires_grad is False
    disabled    is held at the identity-like element E[a, i, j, b] = 1 where a = b and i = j, else 0, rectangular where
                r_{k-1} != r_k or m_k != n_k: its factors pass through as they come, cut or padded with zeros (so an
                outermost core, with r_0 = 1, passes rank index 0 of its bond and leaves the others without effect; a
                ring of disabled cores alone closes on itself r_0 times, and is r_0 times the identity)
    zero        starts at zero, so that W = 0 exactly while this core has a gradient
    shared      is read from elsewhere in the model: see `TTModule.share`
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bias import TTBias
from .cheap_shapes import cheapest_shape
from .contraction import check_plan, matmul
from .even_decomposition import even_cores
from .initializers import CONSTANTS, identity_
from .module import TTModule
from .shapes import check_product, check_raw_shape, index_below, positive_int, tt_shape
from .tensor_network import TensorNetwork

CORE_ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}


class TTLinear(TTModule):
    """y = x W^T + b with W a tensor network; a stand-in for `nn.Linear`.

    Args:
        in_features, out_features: the last dimensions of x and y.
        bias: True or "dense" for a parameter (out,), "tt" for a `TTBias`, False or "none" for none; it starts at zero.
        d: the number of cores; read only where raw_shape is None.
        tt_rank: an int, clipped at each bond of a train to what the bond can use, or a list: the d - 1 interior ranks
            of a train, refused if of no use, or all its d + 1 as they are, or the d ranks (r_0, ..., r_{d-1}) of a
            ring, or those of the d factors of "tucker". The rank of "cp" is one int, and not clipped.
        raw_shape: ((m_1, ..., m_d), (n_1, ..., n_d)), out factors first; None chooses by shape_mode.
        shape_mode: how the sides are factorised, a mode of `tt_shape`, or "cheapest", see `cheapest_shape`; read only
            where raw_shape is None.
        frozen_cores, disabled_cores: indices of cores, negative ones from the end; see the head of this file.
        core_activation: "relu", "gelu", "silu", "tanh" or a callable (with f(0) = 0 where zero_core is used), applied
            between the cores; the layer then has no weight matrix, and `is_linear` is False.
        plan: "auto", "timed", or the name of a way; see `matmul`, also for dtypes: float32 cores serve a bfloat16 x.
        init: a start of `initialize_`. Where cores are disabled, the others are drawn as if none were.
        zero_core: the index of the core that starts at zero, or None.
        format: a name in `FORMATS`: "tensor_train", "tensor_ring", "tensor_basis", "cp" or "tucker", which has no
            disabled cores.
        basis_size: how many basis cores the format "tensor_basis" mixes each core from; None for 4.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range, or two of them exclude each other.
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
        format: str = "tensor_train",
        basis_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        in_features = positive_int(in_features, "in_features")
        out_features = positive_int(out_features, "out_features")
        if raw_shape is None:
            if shape_mode == "cheapest":
                raw_shape = cheapest_shape(in_features, out_features, d, tt_rank)
            else:
                raw_shape = tt_shape(in_features, out_features, d, shape_mode)
        raw_shape = check_raw_shape(raw_shape)
        check_product(raw_shape[0], out_features, "out_features")
        check_product(raw_shape[1], in_features, "in_features")
        super().__init__(raw_shape, tt_rank, device, dtype, frozen_cores, disabled_cores, format, basis_size)
        self.in_features, self.out_features = in_features, out_features
        self.core_activation, self.plan, self.init = _check_activation(core_activation), plan, init
        self.plan = check_plan(plan, len(self.core_shapes), self._activation())
        self.zero_core = None if zero_core is None else index_below(zero_core, len(self.core_shapes), "zero_core")
        self._check_zero_core()
        self.bias = self._make_bias(bias, device, dtype)
        self.reset_parameters()

    @property
    def is_linear(self) -> bool:
        """Whether the layer is a matrix plus a bias, and so can be merged into a dense weight."""
        return self.core_activation is None

    @torch.no_grad()
    def set_weight(self, dense: Tensor) -> None:
        """Set the cores in place to the decomposition of a matrix (out, in) at the layer's own shape and ranks.

        That is its TT-SVD, or of a ring its TR-SVD, in the dtype of the matrix, in float32 at least: the nearest matrix
        of these ranks for d = 2 and within sqrt(d - 1) of it in a train (Oseledets 2011, corollary 2.4). The singular
        values of a bond are split evenly over its two cores, see `even_cores`.

        Raises:
            TypeError: dense is not a floating-point tensor.
            ValueError: it has another shape, or a NaN or an infinity, or nothing (meta device); or the layer has
                activations between its cores, is on the meta device, is of a format whose cores are no Parameters, or
                has frozen, disabled or shared cores.
        """
        self._check_settable()
        if isinstance(dense, Tensor) and dense.shape != (self.out_features, self.in_features):
            raise ValueError(
                f"The matrix must have the shape ({self.out_features}, {self.in_features}) of the layer, but it is "
                f"{tuple(dense.shape)}; take the weight of a linear of that size."
            )
        for core, value in zip(self.cores, even_cores(dense, self.core_shapes), strict=True):
            core.copy_(value)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the start values anew, in place, those of shared cores included."""
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
        """(..., in) -> (..., out), in the dtype that `matmul` gives."""
        return matmul(x, super().network(), self.plan, self._activation(), bias=self.full_bias())

    def full_bias(self) -> Tensor | None:
        """The bias (out,), differentiable in what it is made of; None without one."""
        return self.bias.full() if isinstance(self.bias, TTBias) else self.bias

    def network(self) -> TensorNetwork:
        """The weight as a network over the live parameters; ValueError when the layer is not linear."""
        if not self.is_linear:
            raise ValueError(
                "Only a linear layer has a weight matrix and can be merged, but this one has core_activation="
                f"{self.core_activation!r} between its cores; build it with core_activation=None."
            )
        return super().network()

    def extra_repr(self) -> str:
        sizes = f"{self.in_features}, {self.out_features}"
        return f"{sizes}, raw_shape={self.raw_shape}, ranks={self.ranks}, format={self.format!r}, plan={self.plan!r}"

    def _activation(self) -> Callable[[Tensor], Tensor] | None:
        return CORE_ACTIVATIONS.get(self.core_activation, self.core_activation)

    def _check_settable(self) -> None:
        hindrances = {
            "core_activation": self.core_activation,
            "format": None if self.cores.are_parameters else self.format,
            "frozen_cores": self.frozen_cores,
            "disabled_cores": self.disabled_cores,
            "shared cores": [k for k in range(len(self.cores)) if self.cores.is_shared(k)],
            "device": "meta" if any(core.is_meta for core in self.cores.parameters()) else None,
        }
        for name, value in hindrances.items():
            if value:
                raise ValueError(
                    "A matrix is decomposed into cores that are all the layer's own Parameters, hold numbers and are a "
                    f"linear map, but this layer has {name} = {value!r}; build one without."
                )

    def _check_zero_core(self) -> None:
        if self.zero_core in (*self.frozen_cores, *self.disabled_cores):
            raise ValueError(
                "The core that starts at zero must be trained, or the weight stays zero for ever, but zero_core = "
                f"{self.zero_core} is frozen or disabled; choose another."
            )
        if self.zero_core is not None and self.init in tuple(CONSTANTS):
            raise ValueError(
                f"A zero core makes the whole weight zero, but init={self.init!r} asks for a constant and "
                f"zero_core = {self.zero_core} was given too; use a random init with zero_core."
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
        raise ValueError(
            f"bias must be True, False, 'dense', 'tt' or 'none', but {bias!r} was given; choose one of them."
        )


def _check_activation(activation: str | Callable[[Tensor], Tensor] | None) -> str | Callable[[Tensor], Tensor] | None:
    known = activation in CORE_ACTIVATIONS if isinstance(activation, str) else callable(activation)
    if activation is not None and not known:
        raise ValueError(
            f"core_activation must be one of {', '.join(CORE_ACTIVATIONS)}, a callable or None, "
            f"but {activation!r} was given; choose one of them."
        )
    return activation
