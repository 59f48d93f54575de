"""Random and constant starts with a known matrix: the variance of full() is exact, whatever the shape and the ranks.

    An entry of W is a sum over prod_k r_k paths of products of d independent core entries of variance v, hence
    Var[W_ij] = v^d * prod_k r_k, and a core standard deviation of s^(1/d) * prod_k r_k^(-1/(2d)) gives Var[W_ij] = s^2.

A constant start with all core entries equal would be symmetric in the rank index and never leave rank 1. Here rank index 0 of
each bond carries the constant; the other indices are random on the left of a bond and zero on its right, as in LoRA:

    G_k[0, :, :, 0] = c,   G_k[0, :, :, 1:] random,   G_k[1:] = 0         (last core: G_d[0] = c, G_d[1:] = 0)

so full() is the constant, exactly, and every rank index gets a gradient of its own.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .formats import get_format
from .shapes import check_raw_shape
from .tensor_network import TensorNetwork
from .tensor_train import TensorTrain

SCALED_INITS = {
    "glorot": lambda in_features, out_features: math.sqrt(2 / (in_features + out_features)),
    "he": lambda in_features, out_features: math.sqrt(2 / in_features),
    "lecun": lambda in_features, out_features: math.sqrt(1 / in_features),
}


def standard_deviation(init: str | float, in_features: int, out_features: int) -> float:
    """The standard deviation of W's entries that `init` asks for.

    "glorot" 2 / (in + out) (Glorot & Bengio 2010, eq. 12), "he" 2 / in (He et al. 2015, eq. 10), "lecun" 1 / in (LeCun et al. 1998),
    all as variances; or a positive number, the standard deviation itself.
    """
    if isinstance(init, str) and init in SCALED_INITS:
        return SCALED_INITS[init](in_features, out_features)
    if isinstance(init, int | float) and not isinstance(init, bool) and 0 < init < math.inf:
        return float(init)
    raise ValueError(
        f"init must be one of {', '.join(SCALED_INITS)} or a positive standard deviation, but {init!r} was given; choose one."
    )


@torch.no_grad()
def random_(cores: Sequence[Tensor], std: float) -> None:
    """Fill the cores (r_{k-1}, m_k, n_k, r_k) in place so that the entries of the matrix have variance std^2 and mean 0."""
    d = len(cores)
    paths = math.prod(core.shape[3] for core in cores)
    for core in cores:
        core.normal_(0.0, std ** (1 / d) * paths ** (-1 / (2 * d)))


@torch.no_grad()
def constant_(cores: Sequence[Tensor], value: float) -> None:
    """Fill a train's cores in place so that every entry of the matrix is `value`; see the head of this file."""
    scale = abs(value) ** (1 / len(cores)) or 1.0
    for core in cores:
        core.zero_()
        core[0, :, :, 0] = scale
        core[0, :, :, 1:].normal_(0.0, scale / math.sqrt(core.shape[3]))
    cores[-1][0] = value / scale ** (len(cores) - 1)


def random_matrix(
    raw_shape: Sequence[Sequence[int]],
    rank: int | Sequence[int] = 8,
    std: float = 1.0,
    format: str = "tensor_train",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> TensorNetwork:
    """A random matrix with E[W_ij] = 0 and Var[W_ij] = std^2, in the format of that name."""
    network = _empty(raw_shape, rank, format, dtype, device)
    random_(network.cores, standard_deviation(std, *reversed(network.shape)))
    return network


def matrix_with_random_cores(
    raw_shape: Sequence[Sequence[int]],
    rank: int | Sequence[int] = 8,
    std: float = 1.0,
    format: str = "tensor_train",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> TensorNetwork:
    """A network whose core entries, not those of the matrix, are normal with mean 0 and standard deviation `std`."""
    network = _empty(raw_shape, rank, format, dtype, device)
    for core in network.cores:
        core.normal_(0.0, std)
    return network


def glorot_initializer(raw_shape: Sequence[Sequence[int]], rank: int | Sequence[int] = 8, **options) -> TensorNetwork:
    """A random matrix (out, in) with Var[W_ij] = 2 / (in + out); options as for `random_matrix`."""
    return _scaled("glorot", raw_shape, rank, **options)


def he_initializer(raw_shape: Sequence[Sequence[int]], rank: int | Sequence[int] = 8, **options) -> TensorNetwork:
    """A random matrix (out, in) with Var[W_ij] = 2 / in; options as for `random_matrix`."""
    return _scaled("he", raw_shape, rank, **options)


def lecun_initializer(raw_shape: Sequence[Sequence[int]], rank: int | Sequence[int] = 8, **options) -> TensorNetwork:
    """A random matrix (out, in) with Var[W_ij] = 1 / in; options as for `random_matrix`."""
    return _scaled("lecun", raw_shape, rank, **options)


def const_initializer(
    raw_shape: Sequence[Sequence[int]],
    rank: int | Sequence[int] = 8,
    value: float = 1.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> TensorTrain:
    """A train whose matrix has `value` in every entry and whose rank indices are not symmetric, so that it can learn."""
    network = _empty(raw_shape, rank, "tensor_train", dtype, device)
    constant_(network.cores, value)
    return network


def _scaled(init: str, raw_shape: Sequence[Sequence[int]], rank: int | Sequence[int], **options) -> TensorNetwork:
    out_features, in_features = (math.prod(side) for side in check_raw_shape(raw_shape))
    return random_matrix(raw_shape, rank, std=standard_deviation(init, in_features, out_features), **options)


def _empty(raw_shape, rank, format: str, dtype: torch.dtype | None, device) -> TensorNetwork:
    network = get_format(format)
    shapes = network.core_shapes(check_raw_shape(raw_shape), rank)
    return network(torch.empty(shape, dtype=dtype, device=device) for shape in shapes)
