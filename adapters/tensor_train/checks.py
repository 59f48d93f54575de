"""Checks of the fields of tensor-train kinds against each other, those of TT layer norms included."""

import math
from typing import Any

import t3nsor as t3
from adapters.configuration import as_lists
from adapters.tensor_train.modes import RawShape
from adapters.validation import nearest_name
from t3nsor.tensor_basis import BASIS_SIZE

DEFAULT_CORES = 3
"""The number of cores where nothing says it."""
GAUGED = ("identity", "orthogonal")
"""Starts that only a train has."""


def resolve_shape(config: Any, given_cores: int | None) -> None:
    """Say how many cores there are and how their factors are chosen; refuse what an explicit ``raw_shape`` excludes."""
    if given_cores is not None:
        for key, fits in (("d", (None, given_cores)), ("shape_mode", (None,))):
            value = getattr(config, key, None)
            if value not in fits:
                config.refuse(key, "is given by raw_shape", f"{value!r} beside a raw_shape", "drop one of the two")
        object.__setattr__(config, "d", given_cores)
        return
    if config.d is None:
        object.__setattr__(config, "d", DEFAULT_CORES)
    if hasattr(config, "shape_mode") and config.shape_mode is None:
        object.__setattr__(config, "shape_mode", config.usual_shape_mode())


def check_shape(config: Any, key: str, shape: RawShape | None) -> None:
    """Refuse an explicit shape that is no two lists of equally many factors."""
    rows, columns = shape or ((1,), (1,))
    if not rows or len(rows) != len(columns) or min(*rows, *columns) < 1:
        rule, mend = "takes two lists of equally many factors, each at least 1", "[[12, 16, 16], [8, 8, 12]]"
        config.refuse(key, rule, as_lists(shape), f"write for example {mend}")


def check_format(config: Any) -> None:
    """Hold the format of a tensor-train configuration against what not every format has."""
    if config.format not in t3.FORMATS:
        config.refuse("format", "names a format", repr(config.format), nearest_name(config.format, t3.FORMATS))
    beside = f"with format={config.format!r}"
    if config.format == "tensor_basis":
        if config.basis_size is None:
            object.__setattr__(config, "basis_size", BASIS_SIZE)
        if config.basis_size < 1:
            config.refuse("basis_size", "counts basis cores and is at least 1", config.basis_size, "4 is usual")
        if config.shared_cores:
            rule = "takes no tensor_basis, which has the bases of all cores in common and no core"
            config.refuse("shared_cores", rule, list(config.shared_cores), "leave it out")
    elif config.basis_size is not None:
        mend = 'leave it out, or write "tensor_basis"'
        config.refuse("basis_size", "belongs to a tensor_basis", f"{config.basis_size} {beside}", mend)
    if config.format == "tucker" and config.disabled_cores:
        rule = "takes no tucker, whose core tensor an identity would have to fit"
        config.refuse("disabled_cores", rule, list(config.disabled_cores), "leave it out")
    if config.init in GAUGED and config.format != "tensor_train":
        rule = "of this name sets the cores of a tensor_train around one of them"
        config.refuse("init", rule, f"{config.init!r} {beside}", 'take "glorot"')


def check_cores(config: Any) -> None:
    """Hold rank, d and the core lists of a tensor-train configuration against each other; count cores from 0."""
    if config.d < 1:
        config.refuse("d", "counts the cores and is at least 1", config.d, "3 is usual")
    ranks = (config.rank,) if isinstance(config.rank, int) else config.rank
    if any(rank < 1 for rank in ranks):
        config.refuse("rank", "takes whole numbers from 1 on", as_lists(config.rank), "4 or 8 are usual")
    bonds = t3.FORMATS[getattr(config, "format", "tensor_train")].free_bonds(config.d)
    if not isinstance(config.rank, int) and len(ranks) != len(bonds):
        named = ", ".join(f"r_{k}" for k in bonds) or "none for a single core"
        rule = f"as a list holds {len(bonds)} ranks ({named})"
        config.refuse("rank", rule, list(ranks), "give one number for all bonds, or one for each")
    for name in ("frozen_cores", "disabled_cores", "shared_cores"):
        cores = getattr(config, name)
        for core in cores:
            if not -config.d <= core < config.d:
                config.refuse(name, f"counts cores from 0 to {config.d - 1}", core, "name cores that exist")
        object.__setattr__(config, name, tuple(sorted({core % config.d for core in cores})))
    for core in set(config.disabled_cores) & {*config.frozen_cores, *config.shared_cores}:
        config.refuse("disabled_cores", "excludes frozen and shared cores", core, "name the core in one list only")
    if len({*config.frozen_cores, *config.disabled_cores}) == config.d:
        config.refuse("frozen_cores", "leaves at least one core to train", list(config.frozen_cores), "free one core")


def check_sharing(config: Any) -> None:
    """Refuse a ``share_across`` that nothing reads."""
    default = type(config).share_across
    if not config.shared_slots() and config.share_across != default:
        given = f"{list(config.share_across)} without shared_cores"
        config.refuse("share_across", "says across what cores are shared", given, "name the cores, or leave it out")


def check_factors(config: Any, factors: tuple[int, ...], size: int, side: str) -> None:
    """Refuse factors of ``raw_shape`` whose product is not the size of the layer's side."""
    if math.prod(factors) != size:
        given = f"{list(factors)} with product {math.prod(factors)}"
        mend = f"{list(t3.factorize(size, len(factors)))} would do"
        config.refuse("raw_shape", f"has factors whose product is the {side} size {size}", given, mend)
