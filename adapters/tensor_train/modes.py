"""What each core of a chain carries: factors of a matrix's sides, or one slice for each site of the model.

    mode      core of one matrix    the cores of all matrices
    out_in    (r, m, n, s)          each its own, or with a site mode one for all
    in        (r, 1, n, s)          the same
    out       (r, m, 1, s)          the same
    layer     (r, 1, 1, s)          one slice for each block of each stack
    matrix    (r, 1, 1, s)          one slice for each kind of matrix: kind of sublayer and name of the linear
    linear    (r, 1, 1, s)          one slice for each linear
    task      (r, 1, 1, s)          one slice for each task

The last four are site modes. With one of them the adapter is one tensor for the whole model, of which the delta of a
matrix is an entry in the site modes: every core, and every slice, is shared across all that it is not indexed by. In
(in, layer, matrix, out), say, delta W[l, m] = G_1 G_2[l] G_3[m] G_4 with G_2 (r, L, s) held as L slices.
"""

from collections.abc import Sequence
from typing import Any, Literal

import t3nsor as t3
from adapters.base.sharing import Scope

Mode = Literal["out_in", "in", "out", "layer", "matrix", "linear", "task"]

INDEXED_BY: dict[str, frozenset[Scope]] = {
    "layer": frozenset({"layers"}),
    "matrix": frozenset({"sublayers", "projections"}),
    "linear": frozenset({"layers", "sublayers", "projections"}),
    "task": frozenset({"tasks"}),
}
"""The site modes: in what the places differ that have slices of their own."""

UNFIT_FORMATS = {
    "tensor_basis": "a tensor_basis shares bases instead of cores",
    "tucker": "a slice of a tucker factor has one number, as its rank is at most m_k n_k",
}
"""Formats without site modes, each with the reason."""

MANY = 1 << 30
"""More slices than a model has sites."""

RawShape = tuple[tuple[int, ...], tuple[int, ...]]


def has_sites(modes: Sequence[Mode] | None) -> bool:
    """Whether one of the modes is a site mode."""
    return any(mode in INDEXED_BY for mode in modes or ())


def scopes_of_modes(modes: Sequence[Mode]) -> list[frozenset[Scope]]:
    """For each mode of a chain with site modes: across what its core, or each of its slices, is one and the same."""
    everything = INDEXED_BY["linear"] | (INDEXED_BY["task"] if "task" in modes else frozenset())
    return [everything - INDEXED_BY.get(mode, frozenset()) for mode in modes]


def carries(mode: Mode, side: Literal["out", "in"]) -> bool:
    """Whether a core of this mode has a factor of the out features, or of the in features."""
    return mode in (side, "out_in")


def are_plain(modes: Sequence[Mode] | None) -> bool:
    """Whether every core carries both sides, as where nothing is said."""
    return all(mode == "out_in" for mode in modes or ())


def shape_of_modes(modes: Sequence[Mode], in_features: int, out_features: int, shape_mode: str) -> RawShape:
    """((m_1..m_d), (n_1..n_d)): each side is factorised over the cores that carry it, and is 1 in the others.

    ``shape_mode`` orders the factors: "ascending", "descending", "mixed", or "reversed_out" (out descending, in
    ascending).
    """
    orders = ("descending", "ascending") if shape_mode == "reversed_out" else (shape_mode, shape_mode)
    return tuple(
        _over_carriers(modes, side, size, order)
        for side, size, order in zip(("out", "in"), (out_features, in_features), orders, strict=True)
    )


def _over_carriers(modes: Sequence[Mode], side: Literal["out", "in"], size: int, order: str) -> tuple[int, ...]:
    carriers = [carries(mode, side) for mode in modes]
    factors = iter(t3.factorize(size, sum(carriers), order))
    return tuple(next(factors) if carrier else 1 for carrier in carriers)


def ranks_of_sites(modes: Sequence[Mode], raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
    """(1, r_1, ..., r_{d-1}, 1), the ranks of a train that the tensor of all its sites can use.

    A site mode has as many slices as there are sites, of which one layer holds one, so that it bounds no rank: a bond
    is cut only to what a side of it can use that has features alone, and not at all where both sides have site modes.
    """
    rows, columns = raw_shape
    rows = tuple(MANY if mode in INDEXED_BY else row for mode, row in zip(modes, rows, strict=True))
    return t3.TensorTrain.resolve_ranks((rows, columns), rank)


def check_modes(config: Any) -> None:
    """Hold modes against the other fields of a tensor-train configuration, and say what follows from them."""
    modes = config.modes
    for side in ("out", "in"):
        if not any(carries(mode, side) for mode in modes):
            config.refuse(
                "modes", f"has a core for the {side} features", list(modes), f'add "{side}", or write "out_in"'
            )
    if config.d not in (None, len(modes)):
        config.refuse("d", "is the number of modes", f"{config.d} beside {len(modes)} modes", "drop one of the two")
    object.__setattr__(config, "d", len(modes))
    if config.raw_shape is not None:
        _check_raw_shape(config)
    elif not are_plain(modes):
        if config.shape_mode is None:
            object.__setattr__(config, "shape_mode", "ascending")
        elif config.shape_mode in ("in_only", "out_only", "cheapest"):
            rule = 'orders the factors where modes other than "out_in" say which cores have them'
            mend = 'write "ascending", "descending", "mixed" or "reversed_out", or give raw_shape'
            config.refuse("shape_mode", rule, repr(config.shape_mode), mend)
    if has_sites(modes):
        _check_sites(config)


def _check_raw_shape(config: Any) -> None:
    if len(config.raw_shape[0]) != len(config.modes):
        given = f"{len(config.raw_shape[0])} factors a side beside {len(config.modes)} modes"
        config.refuse("raw_shape", "has a factor of each side for each mode", given, "write 1 where a mode has none")
    for side, factors in zip(("out", "in"), config.raw_shape, strict=True):
        for k, (mode, factor) in enumerate(zip(config.modes, factors, strict=True)):
            if factor != 1 and not carries(mode, side):
                given = f"{factor} for core {k}, which is {mode!r}"
                config.refuse("raw_shape", f"has {side} factors where modes have them", given, "write 1 there")


def _check_sites(config: Any) -> None:
    sites = [mode for mode in config.modes if mode in INDEXED_BY]
    if not config.takes_site_modes:
        mend = 'take "in", "out" and "out_in" here, or the kind tt_lora'
        config.refuse("modes", "makes one tensor of linears of equal sizes", sites, mend)
    for key in ("shared_cores", "rank_pattern", "shape_pattern"):
        if value := getattr(config, key):
            given = f"{list(value)} beside the site mode {sites[0]!r}"
            config.refuse(key, "leaves to site modes what is one and the same in several places", given, "leave it out")
    if config.share_across != type(config).share_across:
        given = f"{list(config.share_across)} beside the site mode {sites[0]!r}"
        config.refuse("share_across", "is said by site modes", given, "leave it out")
    for format, why in UNFIT_FORMATS.items():
        if config.format == format:
            mend = 'take a "tensor_train", a "tensor_ring" or "cp"'
            config.refuse("modes", f"of sites are cores of a chain, and {why}", f"{sites} with {format!r}", mend)
