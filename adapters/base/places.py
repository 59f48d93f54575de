"""The places of an adapter's modules in a model.

    position "before"    the input of the encoder                     -> AdaptedInput.before
    position "beside"    the linears named by target_modules          -> AdaptedLinear.beside
    position "after"     the linear at the end of the sublayer        -> AdaptedLinear.after
    position "norm"      the sublayer's layer norms                   -> AdaptedLayerNorm.replacement
    position "weights"   none: the kind only decides which of the model's own parameters are trainable

A kind with other places overrides ``AdapterConfig.places``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.base.sublayers import Sublayer, select_sublayers
from adapters.base.targets import candidates, matching


@dataclass(frozen=True)
class Place:
    """One place of one adapter.

    Args:
        path: of the base's module.
        slot: the attribute of the host that holds the adapters at this place, such as "beside".
        sublayer: its sublayer.
        projection: the linear's name; "" for a place of the sublayer as a whole.
        number: the index of this place among those of the adapter, for a kind whose places differ.
        count: the number of places, for a kind that divides something among them.
    """

    path: str
    slot: str
    sublayer: Sublayer
    projection: str = ""
    number: int = 0
    count: int = 1


def linears_by_name(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The linears that ``config.target_modules`` names, but for those of ``config.exclude_modules``.

    By default those of the feed-forward sublayers; for the names see ``adapters.base.targets``.
    """
    if config.target_modules is None:
        select_sublayers(config, sublayers)  # refuses an unknown architecture
    linears = candidates(config, sublayers)
    if config.target_modules is None:
        chosen = {s.linears[name] for s, name in linears if s.kind == "feed_forward"}
        if not chosen:
            given = f"null with sublayers {list(config.sublayers)}"
            config.refuse("target_modules", "is the feed-forward linears by default", given, "name linears")
    else:
        chosen = matching(config, "target_modules", config.target_modules, linears)
    excluded = getattr(config, "exclude_modules", None)
    if excluded is not None:
        chosen -= matching(config, "exclude_modules", excluded, linears)
        if not chosen:
            given = "names of all target modules"
            config.refuse("exclude_modules", "leaves at least one linear", given, "leave one of them out")
    return [Place(s.linears[name], "beside", s, name) for s, name in linears if s.linears[name] in chosen]


def every_linear(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """All linears of the selected sublayers."""
    return [
        Place(path, "beside", sublayer, name)
        for sublayer in select_sublayers(config, sublayers)
        for name, path in sublayer.linears.items()
    ]


def ends_of_sublayers(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The last linear of each selected sublayer."""
    return [Place(sublayer.output, "after", sublayer) for sublayer in select_sublayers(config, sublayers)]


def norms(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The layer norms of each selected sublayer."""
    return [Place(norm, "replacement", s) for s in select_sublayers(config, sublayers) for norm in s.norms]


def inputs(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The input of each selected stack."""
    ends = [sublayer for sublayer in sublayers if sublayer.prompt_stack and sublayer.stack in config.stacks]
    if not ends:
        rule = "needs an encoder with relative positions, whose input it lengthens"
        config.refuse("kind", rule, "another architecture", "use a T5, or for another model peft's prompt tuning")
    return [Place(sublayer.prompt_stack, "before", sublayer) for sublayer in ends]


PLACES: dict[str, Callable[[Any, list[Sublayer]], list[Place]]] = {
    "before": inputs,
    "beside": linears_by_name,
    "after": ends_of_sublayers,
    "norm": norms,
    "weights": lambda config, sublayers: [],
}
"""The places of an adapter by its position."""
