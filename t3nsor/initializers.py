"""Random and constant initialisers with exact statistics of the matrix full(), for any shape and ranks.

An entry of W is a sum over prod_k r_k paths of products of d independent core entries of variance v, so that

    Var[W_ij] = v^d prod_k r_k        core entries of deviation s^(1/d) prod_k r_k^(-1/(2d)) give Var[W_ij] = s^2

Two paths differ in an entry of some core, so their products are uncorrelated. The product of r_k runs over the bonds
k = 1..d: in a train r_d = 1; in a ring the trace also sums over r_d = r_0, and the same formula holds.

If all core entries were equal, the rank indices would be symmetric and training could never leave rank 1. In a constant
initialisation, rank index 0 of each bond carries the constant; the other indices are random on the left of the bond and
zero on its right, as in LoRA:

    G_k[0, :, :, 0] = c,   G_k[0, :, :, 1:] random,   G_k[1:] = 0;   last core: c' in place of c

so full() is exactly the constant, and every rank index has a gradient of its own.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor

from .formats import Format, get_format, name_and_format
from .shapes import check_raw_shape
from .tensor_network import TensorNetwork
from .tensor_train import TensorTrain
from .truncation import factoring_dtype

VARIANCES = {
    "glorot": lambda in_features, out_features: 2 / (in_features + out_features),  # Glorot & Bengio 2010, eq. 12
    "he": lambda in_features, out_features: 2 / in_features,  # He et al. 2015, eq. 10
    "lecun": lambda in_features, out_features: 1 / in_features,  # LeCun et al. 1998, section 4.6
}
CONSTANTS = {
    "const": lambda in_features: 1 / in_features,  # y is the mean of x
    "zero": lambda in_features: 0.0,
    "ones": lambda in_features: 1.0,
}

STRUCTURED = ("identity", "orthogonal")


def initialize_(cores: Sequence[Tensor], init: str | float, center: int = -1) -> None:
    """Initialise cores (r_{k-1}, m_k, n_k, r_k) in place.

    "glorot", "he", "lecun": random with variance 2 / (in + out), 2 / in, 1 / in;   a positive number: random with that
    standard deviation;   "const", "zero", "ones": 1 / in, 0 or 1 in every entry;   "identity",
    "orthogonal": see `unfolded_identities_` and `orthogonal_`, which use `center`.   ValueError for anything else.
    """
    out_features = math.prod(core.shape[1] for core in cores)
    in_features = math.prod(core.shape[2] for core in cores)
    if isinstance(init, str) and init in CONSTANTS:
        constant_(cores, CONSTANTS[init](in_features))
    elif init == "identity":
        unfolded_identities_(cores, center)
    elif init == "orthogonal":
        orthogonal_(cores, center, math.sqrt(VARIANCES["glorot"](in_features, out_features)))
    elif isinstance(init, str) and init in VARIANCES:
        random_(cores, math.sqrt(VARIANCES[init](in_features, out_features)))
    elif _is_number(init) and 0 < init < math.inf:
        random_(cores, init)
    else:
        raise ValueError(
            f"init must be one of {', '.join((*VARIANCES, *CONSTANTS, *STRUCTURED))} or a positive standard deviation; "
            f"got {init!r}: choose one of them."
        )


@torch.no_grad()
def random_(cores: Sequence[Tensor], std: float) -> None:
    """Draw cores (r_{k-1}, m_k, n_k, r_k) in place so that the matrix has entries of mean 0 and variance std^2."""
    for core in cores:
        if not core.is_meta:  # normal_ on the meta device is slow and has no effect
            core.normal_(0.0, _core_std(cores, std))


def _core_std(cores: Sequence[Tensor], std: float) -> float:
    """Return the standard deviation of the core entries for which that of the matrix entries is `std`."""
    d = len(cores)
    paths = math.prod(core.shape[3] for core in cores)
    return std ** (1 / d) * paths ** (-1 / (2 * d))


@torch.no_grad()
def mean_squares_(cores: Sequence[Tensor], init: str | float, center: int) -> None:
    """Set each entry of the cores in place to the mean of its square under `initialize_`, but for the center's.

    ValueError for a constant init, whose entries are not uncorrelated.
    """
    if init == "identity":
        unfolded_identities_(cores, center)
    elif init == "orthogonal":
        for k, core in enumerate(cores):
            rows = core.shape[0] if k > center % len(cores) else core.shape[:3].numel()
            core.fill_(1 / max(rows, core.numel() // rows))
    elif init in CONSTANTS:
        raise ValueError(f"Mean squares are those of a random init; got init={init!r}: use for example 'glorot'.")
    else:
        size = [math.prod(core.shape[side] for core in cores) for side in (2, 1)]
        std = math.sqrt(VARIANCES[init](*size)) if isinstance(init, str) else init
        for core in cores:
            core.fill_(_core_std(cores, std) ** 2)


@torch.no_grad()
def constant_(cores: Sequence[Tensor], value: float) -> None:
    """Set cores in place so that every entry of the matrix is `value`; see the head of this file."""
    scale = abs(value) ** (1 / len(cores)) or 1.0
    for core in cores:
        core.zero_()
        core[0, :, :, 0] = scale
        core[0, :, :, 1:].normal_(0.0, scale / math.sqrt(core.shape[3]))
    cores[-1][0, :, :, 0] = value / scale ** (len(cores) - 1)


@torch.no_grad()
def identity_(core: Tensor) -> None:
    """Set a core (r, m, n, s) in place to E[a, i, j, b] = 1 if a = b and i = j, else 0."""
    r, m, n, s = core.shape
    rank_identity = torch.eye(r, s, dtype=core.dtype, device=core.device)
    factor_identity = torch.eye(m, n, dtype=core.dtype, device=core.device)
    core.copy_(torch.einsum("rs,mn->rmns", rank_identity, factor_identity))  # (r, s) x (m, n) -> (r, m, n, s)


@torch.no_grad()
def unfolded_identities_(cores: Sequence[Tensor], center: int) -> None:
    """Set the unfolding of each core to the identity in place, (r m n, s) up to the center, (r, m n s) after it.

    With a zero center this is the initialisation ze-id-id-id of MetaTT (arXiv:2506.09105). Every useful rank index of a
    bond is then reached from both sides; with `identity_` all but the first would have no gradient.

    Raises:
        ValueError: the cores are a ring, in which most rank indices would never have a gradient.
    """
    _check_train(cores, "an identity in their unfoldings")
    for k, core in enumerate(cores):
        rows = core.shape[0] if k > center % len(cores) else core.shape[:3].numel()
        core.copy_(torch.eye(rows, core.numel() // rows, dtype=core.dtype, device=core.device).reshape(core.shape))


@torch.no_grad()
def orthogonal_(cores: Sequence[Tensor], center: int, std: float) -> None:
    """Draw the cores of a train in place, in the gauge that is orthogonal around the core `center`.

    Left unfoldings (r m n, s) before the center and right ones (r, m n s) after it are drawn uniformly from those with
    orthonormal columns or rows (Saxe et al. 2013, arXiv:1312.6120), so that || W || is the norm of the center, whose
    entries are normal with the variance for which W has the mean square std^2.

    Raises:
        ValueError: the cores are a ring, which has no such gauge.
    """
    _check_train(cores, "orthogonal")
    center %= len(cores)
    entries = math.prod(core.shape[1] * core.shape[2] for core in cores)
    for k, core in enumerate(cores):
        if core.is_meta:
            continue
        if k == center:
            core.normal_(0.0, std * math.sqrt(entries / core.numel()))
        else:
            rows = core.shape[0] if k > center else core.shape[:3].numel()
            unfolding = core.new_empty(rows, core.numel() // rows, dtype=factoring_dtype(core.dtype))
            core.copy_(torch.nn.init.orthogonal_(unfolding).reshape(core.shape))


def random_matrix(
    raw_shape: Sequence[Sequence[int]],
    rank: int | Sequence[int] = 8,
    std: float = 1.0,
    format: str | Format = "tensor_train",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> TensorNetwork:
    """Return a random matrix with E[W_ij] = 0 and Var[W_ij] = std^2, as a network of a format in `FORMATS`."""
    std = _check_std(std)
    return _drawn(raw_shape, rank, format, dtype, device, lambda cores: random_(cores, std))


def matrix_with_random_cores(
    raw_shape: Sequence[Sequence[int]],
    rank: int | Sequence[int] = 8,
    std: float = 1.0,
    format: str | Format = "tensor_train",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> TensorNetwork:
    """Return a network whose core entries, not those of the matrix, are normal with standard deviation `std`.

    For the formats "cp" and "tucker" these are the entries of the factors and of the core tensor.
    """
    std = _check_std(std)

    def fill(cores: Sequence[Tensor]) -> None:
        for core in cores:
            core.normal_(0.0, std)

    return _drawn(raw_shape, rank, format, dtype, device, fill)


def glorot_initializer(raw_shape: Sequence[Sequence[int]], rank: int | Sequence[int] = 8, **options) -> TensorNetwork:
    """Return a random matrix (out, in) with Var[W_ij] = 2 / (in + out); options as for `random_matrix`."""
    return random_matrix(raw_shape, rank, std=_scaled_std("glorot", raw_shape), **options)


def he_initializer(raw_shape: Sequence[Sequence[int]], rank: int | Sequence[int] = 8, **options) -> TensorNetwork:
    """Return a random matrix (out, in) with Var[W_ij] = 2 / in; options as for `random_matrix`."""
    return random_matrix(raw_shape, rank, std=_scaled_std("he", raw_shape), **options)


def lecun_initializer(raw_shape: Sequence[Sequence[int]], rank: int | Sequence[int] = 8, **options) -> TensorNetwork:
    """Return a random matrix (out, in) with Var[W_ij] = 1 / in; options as for `random_matrix`."""
    return random_matrix(raw_shape, rank, std=_scaled_std("lecun", raw_shape), **options)


def const_initializer(
    raw_shape: Sequence[Sequence[int]],
    rank: int | Sequence[int] = 8,
    value: float = 1.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> TensorTrain:
    """Return a train of a constant matrix, trainable at any rank, since its rank indices are not symmetric."""
    if not _is_number(value) or not math.isfinite(value):
        raise ValueError(f"value must be a finite number; got {value!r}: pass e.g. 1.0.")
    return _drawn(raw_shape, rank, "tensor_train", dtype, device, lambda cores: constant_(cores, value))


def _scaled_std(init: str, raw_shape: Sequence[Sequence[int]]) -> float:
    out_features, in_features = (math.prod(side) for side in check_raw_shape(raw_shape))
    return math.sqrt(VARIANCES[init](in_features, out_features))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_train(cores: Sequence[Tensor], gauge: str) -> None:
    if cores[0].shape[0] != 1:
        raise ValueError(
            f"Only the cores of a train can be {gauge} around one of them; got a ring with r_0 = "
            f"{cores[0].shape[0]}: use a random init."
        )


def _check_std(std: float) -> float:
    if not _is_number(std) or not 0 < std < math.inf:
        raise ValueError(f"std must be a positive number; got {std!r}: pass e.g. 0.02.")
    return std


@torch.no_grad()
def _drawn(
    raw_shape: Sequence[Sequence[int]],
    rank: int | Sequence[int],
    format: str | Format,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    fill: Callable[[Sequence[Tensor]], None],
) -> TensorNetwork:
    """Return a network with the parameters of a layer of that format, filled by `fill`, see `Cores.reset`."""
    name, format = name_and_format(format)
    cores = format.make_cores(check_raw_shape(raw_shape), rank, dtype=dtype, device=device)
    cores.reset(fill)
    return get_format(name)(core.detach() for core in cores.live())
