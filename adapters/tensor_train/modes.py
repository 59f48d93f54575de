"""Modes: what each core of a chain carries, factors of the features or one slice per site of the model.

    mode      core            one matrix 768 -> 3072, rank 8                the matrices of a model
    out_in    (r, m, n, s)    out_in x 3: (1, 12, 8, 8) (8, 16, 8, 8)       one core per matrix; a single one for all
                              (8, 16, 12, 1)                                matrices if there is a site mode
    in        (r, 1, n, s)    in, out:    (1, 1, 768, 8)                    likewise
    out       (r, m, 1, s)                (8, 3072, 1, 1), which is LoRA    likewise
    layer     (r, 1, 1, s)                                                  one slice per block of each stack
    matrix    (r, 1, 1, s)                                                  one slice per kind of matrix: kind of
                                                                            sublayer and name of the linear
    linear    (r, 1, 1, s)                                                  one slice per linear
    task      (r, 1, 1, s)                                                  one slice per task
    loop      (r, 1, 1, s)                                                  one slice per loop of a looped model
    expert    (r, 1, 1, s)                                                  one slice per expert of a layer

The last six are site modes. With one of them the adapter is a single tensor for the whole model, and the delta of a
matrix is an entry of it in the site modes: every core, and every slice, is shared across all sites that it is not
indexed by. For example (in, layer, matrix, out) is delta W[l, m] = G_1 G_2[l] G_3[m] G_4, where G_2 (r, L, s) is stored
as L slices.
"""

from collections.abc import Sequence
from typing import Any, Literal

import t3nsor as t3
from adapters.base.sharing import Scope
from t3nsor.shapes import RawShape

Mode = Literal["out_in", "in", "out", "layer", "matrix", "linear", "task", "loop", "expert"]
Side = Literal["out", "in"]

INDEXED_BY: dict[str, frozenset[Scope]] = {
    "layer": frozenset({"layers"}),
    "matrix": frozenset({"sublayers", "projections"}),
    "linear": frozenset({"layers", "sublayers", "projections"}),
    "task": frozenset({"tasks"}),
    "loop": frozenset({"loops"}),
    "expert": frozenset({"experts"}),
}
"""The site modes, each with the scopes in which two places must differ to have different slices."""

FORMATS_WITHOUT_SITES = {
    "tensor_basis": "a tensor_basis shares bases instead of cores",
    "tucker": "a slice of a tucker factor would be a single number, as its rank is at most m_k n_k",
}
"""Formats that do not support site modes, each with the reason."""

UNBOUNDED = 1 << 30
"""Stands for the number of slices of a site mode: more than a model has sites, so that it bounds no rank."""


def carries(mode: Mode, side: Side) -> bool:
    """Return whether a core of this mode has a factor of the out features, or of the in features."""
    return mode in (side, "out_in")


def all_two_sided(modes: Sequence[Mode] | None) -> bool:
    """Return whether every core carries both sides; None is the default, "out_in" for all cores."""
    return all(mode == "out_in" for mode in modes or ())


def has_sites(modes: Sequence[Mode] | None) -> bool:
    """Return whether one of the modes is a site mode."""
    return any(mode in INDEXED_BY for mode in modes or ())


def scopes_of_modes(modes: Sequence[Mode]) -> list[frozenset[Scope]]:
    """Return, for each core of a chain with site modes, the scopes across which it, or each slice, is shared."""
    everything = INDEXED_BY["linear"].union(*(INDEXED_BY[mode] for mode in ("task", "loop", "expert") if mode in modes))
    return [everything - INDEXED_BY.get(mode, frozenset()) for mode in modes]


def shape_of_modes(modes: Sequence[Mode], in_features: int, out_features: int, shape_mode: str) -> RawShape:
    """Factorise each side over the cores that carry it; the other cores get 1.

    Args:
        shape_mode: the order of the factors: "ascending", "descending", "mixed", or "reversed_out" (out descending, in
            ascending).

    Returns:
        ((m_1..m_d), (n_1..n_d)): in, in, out of 768 -> 3072 is (1, 1, 3072), (24, 32, 1).
    """
    orders = ("descending", "ascending") if shape_mode == "reversed_out" else (shape_mode, shape_mode)
    return tuple(
        _factors_of_side(modes, side, size, order)
        for side, size, order in zip(("out", "in"), (out_features, in_features), orders, strict=True)
    )


def _factors_of_side(modes: Sequence[Mode], side: Side, size: int, order: str) -> tuple[int, ...]:
    carriers = [carries(mode, side) for mode in modes]
    factors = iter(t3.factorize(size, sum(carriers), order))
    return tuple(next(factors) if carrier else 1 for carrier in carriers)


def ranks_of_sites(modes: Sequence[Mode], raw_shape: RawShape, rank: int | Sequence[int]) -> tuple[int, ...]:
    """Return (1, r_1, ..., r_{d-1}, 1), the ranks that the tensor of all sites can use.

    A site mode has as many slices as the model has sites, of which a layer holds one, so it bounds no rank: a bond is
    clipped only to what a side of it that carries nothing but features can use, and not at all if both sides of it
    have site modes.
    """
    rows, columns = raw_shape
    rows = tuple(UNBOUNDED if mode in INDEXED_BY else row for mode, row in zip(modes, rows, strict=True))
    return t3.TensorTrain.resolve_ranks((rows, columns), rank)


def check_modes(config: Any) -> None:
    """Raise ConfigurationError if the modes of a tensor-train configuration contradict its other fields."""
    for side in ("out", "in"):
        if not any(carries(mode, side) for mode in config.modes):
            rule, fix = f"must have a core for the {side} features", f'add "{side}", or write "out_in"'
            config.refuse("modes", rule, list(config.modes), fix)
    if config.raw_shape is not None:
        _check_raw_shape(config)
    if has_sites(config.modes):
        _check_sites(config)


def _check_raw_shape(config: Any) -> None:
    if len(config.raw_shape[0]) != len(config.modes):
        given = f"{len(config.raw_shape[0])} factors a side for {len(config.modes)} modes"
        config.refuse("raw_shape", "must have a factor of each side for each mode", given, "use 1 if a mode has none")
    for side, factors in zip(("out", "in"), config.raw_shape, strict=True):
        for k, (mode, factor) in enumerate(zip(config.modes, factors, strict=True)):
            if factor != 1 and not carries(mode, side):
                given = f"{factor} for core {k}, which is {mode!r}"
                config.refuse("raw_shape", f"must be 1 where a mode has no {side} factor", given, "write 1 there")


def _check_sites(config: Any) -> None:
    sites = [mode for mode in config.modes if mode in INDEXED_BY]
    if not config.supports_site_modes:
        rule = "must be without site modes, whose linears need equal sizes"
        config.refuse("modes", rule, sites, 'use "in", "out" and "out_in" here, or the kind tt_lora')
    if "loop" in sites and not config.supports_loops:
        config.refuse("modes", "with a slice per loop belong to the kind tt_lora", sites, 'leave "loop" out')
    if "expert" in sites and not config.supports_experts:
        rule = "has a slice per expert in the PEFT tuner alone"
        config.refuse("modes", rule, sites, "use target_parameters of adapters.peft.TensorTrainConfig")
    given = f"together with the site mode {sites[0]!r}"
    for key in ("shared_cores", "rank_pattern", "shape_pattern"):
        if value := getattr(config, key):
            rule = "is not supported with site modes, which decide what places share"
            config.refuse(key, rule, f"{list(value)} {given}", "leave it out")
    if config.share_across != type(config).share_across:
        rule = "is not supported with site modes, which decide what places share"
        config.refuse("share_across", rule, f"{list(config.share_across)} {given}", "leave it out")
    if reason := FORMATS_WITHOUT_SITES.get(config.format):
        fix = 'use a "tensor_train", a "tensor_ring" or "cp"'
        rule = f"with sites need a format whose cores form a chain ({reason})"
        config.refuse("modes", rule, f"{sites} with {config.format!r}", fix)
