"""Checks of tensor-train fields against each other, those of TT layer norms included.

Each function reads a configuration and raises ConfigurationError, or returns the resolved values of the fields that it
checks; only the configuration's own ``__post_init__`` sets them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import t3nsor as t3
from adapters.configuration import as_lists
from adapters.tensor_train.modes import RawShape
from adapters.validation import nearest_name
from t3nsor.tensor_basis import BASIS_SIZE

DEFAULT_CORES = 3
"""d by default."""
GAUGED = ("identity", "orthogonal")
"""Initializations that need a canonical form, which only trains have."""


def check_shape(config: Any, key: str, shape: RawShape) -> None:
    """Check that an explicit shape is two non-empty lists of equally many positive factors."""
    rows, columns = shape
    if not rows or len(rows) != len(columns) or min(*rows, *columns) < 1:
        rule, fix = "must be two lists of equally many positive factors", "[[12, 16, 16], [8, 8, 12]]"
        config.refuse(key, rule, as_lists(shape), f"write for example {fix}")


def check_rank(config: Any, key: str, rank: int | Sequence[int]) -> None:
    """Check that a rank, or each of a list of ranks, is at least 1."""
    if min((rank,) if isinstance(rank, int) else rank, default=1) < 1:
        config.refuse(key, "must be a positive integer or a list of them", as_lists(rank), "4 or 8 is typical")


def resolve_number_of_cores(config: Any, given: Mapping[str, int | None]) -> int:
    """Return d: as given by another field, or d itself, or 3.

    Args:
        given: the number of cores by the name of the field that fixes it, None if that field is not set.
    """
    for key, count in given.items():
        if count is not None:
            if config.d not in (None, count):
                config.refuse("d", f"is given by {key}", f"{config.d} with {count} in {key}", "drop one of the two")
            return count
    if config.d is None:
        return DEFAULT_CORES
    config.check_positive("d", "3")
    return config.d


def check_rank_list(config: Any, bonds: Sequence[int]) -> None:
    """Check that a rank given as a list has one entry for each free bond."""
    if not isinstance(config.rank, int) and len(config.rank) != len(bonds):
        names = ", ".join(f"r_{k}" for k in bonds) or "none for a single core"
        rule = f"as a list must hold {len(bonds)} ranks ({names})"
        config.refuse("rank", rule, list(config.rank), "give one rank for all bonds, or one for each")


def resolve_core_lists(config: Any) -> dict[str, tuple[int, ...]]:
    """Return ``frozen_cores``, ``disabled_cores`` and ``shared_cores`` sorted, counted from 0 and without repeats."""
    resolved = {}
    for name in ("frozen_cores", "disabled_cores", "shared_cores"):
        cores = getattr(config, name)
        for core in cores:
            if not -config.d <= core < config.d:
                rule = f"must hold core indices from 0 to {config.d - 1}, or negative ones from the end"
                config.refuse(name, rule, core, "name cores that exist")
        resolved[name] = tuple(sorted({core % config.d for core in cores}))
    frozen, disabled, shared = map(set, resolved.values())
    for core in disabled & (frozen | shared):
        rule = "must have no core in common with frozen_cores and shared_cores"
        config.refuse("disabled_cores", rule, core, "name the core in one list only")
    if len(frozen | disabled) == config.d:
        rule = "must leave at least one core to train"
        config.refuse("frozen_cores", rule, list(config.frozen_cores), "leave one core out")
    return resolved


def resolve_basis_size(config: Any) -> int | None:
    """Return ``basis_size``: 4 by default with the format "tensor_basis", None with the others."""
    if config.format != "tensor_basis":
        if config.basis_size is not None:
            given = f"{config.basis_size} with format={config.format!r}"
            config.refuse("basis_size", "belongs to a tensor_basis", given, 'leave it out, or write "tensor_basis"')
        return None
    config.check_positive("basis_size", "4")
    return BASIS_SIZE if config.basis_size is None else config.basis_size


def check_format(config: Any) -> None:
    """Check that the format exists and supports the other fields."""
    if config.format not in t3.FORMATS:
        fix = nearest_name(config.format, t3.FORMATS)
        config.refuse("format", "must name a tensor format", repr(config.format), fix)
    if config.format == "tensor_basis" and config.shared_cores:
        rule = "is not supported with a tensor_basis, which shares the bases of all cores instead of cores"
        config.refuse("shared_cores", rule, list(config.shared_cores), "leave it out")
    if config.format == "tucker" and config.disabled_cores:
        rule = "is not supported with tucker, whose core tensor has no fixed ranks beside an identity"
        config.refuse("disabled_cores", rule, list(config.disabled_cores), "leave it out")
    if config.init in GAUGED and config.format != "tensor_train":
        given = f"{config.init!r} with format={config.format!r}"
        config.refuse("init", "of this name needs the canonical form of a tensor_train", given, 'use "glorot"')


def check_sharing(config: Any) -> None:
    """Check that ``share_across`` has its default value if nothing is shared."""
    if not config.shared_slots() and config.share_across != type(config).share_across:
        given = f"{list(config.share_across)} without shared_cores"
        config.refuse("share_across", "applies to shared cores", given, "name the cores, or leave it out")


def check_activation(config: Any) -> None:
    """Check that an activation between cores has two cores to act between."""
    if config.core_activation is not None and config.d == 1:
        given = f"{config.core_activation!r} with d=1"
        config.refuse("core_activation", "acts between two cores", given, "use d >= 2")


def check_init(config: Any) -> None:
    """Check that an ``init`` given as a number is a standard deviation."""
    if isinstance(config.init, float) and not 0 < config.init < math.inf:
        config.refuse("init", "as a number must be a positive standard deviation", config.init, "0.02 is typical")


def resolve_zero_core(config: Any, candidates: Sequence[int]) -> int | None:
    """Return ``zero_core`` counted from 0; None if it is not given.

    Args:
        candidates: the cores that train and that tasks do not share.
    """
    if not candidates and config.has_sites:
        rule = 'must have a mode "task" that trains: each task\'s own slice, which starts at zero'
        fix = "leave its core out of frozen_cores and disabled_cores"
        config.refuse("modes", rule, as_lists(config.modes), fix)
    if not candidates:
        rule = "across tasks must leave each task a trainable core of its own, which starts at zero"
        fix = 'take one out, or "tasks" out of share_across'
        config.refuse("shared_cores", rule, list(config.shared_cores), fix)
    if config.zero_core is None:
        return None
    core = config.zero_core + config.d if config.zero_core < 0 else config.zero_core
    if core not in candidates:
        rule = f"must be one of {sorted(candidates)}, the cores that train and that tasks do not share"
        config.refuse("zero_core", rule, config.zero_core, "choose one of them")
    return core
