"""Where in a model the modules of an adapter go.

    position "before"    the input of the encoder                     -> AdaptedInput.before
    position "beside"    the linears named by target_modules          -> AdaptedLinear.beside
    position "after"     the linear at the end of the sublayer        -> AdaptedLinear.after
    position "norm"      the sublayer's layer norm                    -> AdaptedLayerNorm.replacement
    position "weights"   nowhere: the kind decides only which of the model's own parameters train

A kind that sits elsewhere overrides ``AdapterConfig.places``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.base.sublayers import Sublayer, select_sublayers
from adapters.validation import nearest_name


@dataclass(frozen=True)
class Place:
    """One place of one adapter.

    Args:
        path: the base's module.
        slot: the attribute of its host that holds the adapters there.
        sublayer: the sublayer it belongs to.
        projection: the linear's name; "" for a place of the sublayer as a whole.
        number: this place among all of the adapter's, counted from 0, for a kind whose places differ.
        count: how many places there are, for a kind that divides something among them.
    """

    path: str
    slot: str
    sublayer: Sublayer
    projection: str = ""
    number: int = 0
    count: int = 1


def linears_by_name(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The linears that ``config.target_modules`` names; all of the feed-forward sublayers where it is None."""
    chosen = select_sublayers(config, sublayers)
    if config.target_modules is None:
        chosen = [sublayer for sublayer in chosen if sublayer.kind == "feed_forward"]
        if not chosen:
            given = f"null with sublayers {list(config.sublayers)}"
            config.refuse("target_modules", "means the feed-forward linears where it is null", given, "name linears")
    known = {name for sublayer in chosen for name in sublayer.linears}
    names = known if config.target_modules is None else config.target_modules
    for name in names:
        if name not in known:
            rule = f"names linears of the sublayers {', '.join(config.sublayers)}"
            config.refuse("target_modules", rule, repr(name), nearest_name(name, known))
    return [
        Place(path, "beside", sublayer, name)
        for sublayer in chosen
        for name, path in sublayer.linears.items()
        if name in names
    ]


def every_linear(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """All linears of the chosen sublayers."""
    return [
        Place(path, "beside", sublayer, name)
        for sublayer in select_sublayers(config, sublayers)
        for name, path in sublayer.linears.items()
    ]


def ends_of_sublayers(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The last linear of each chosen sublayer."""
    return [Place(sublayer.output, "after", sublayer) for sublayer in select_sublayers(config, sublayers)]


def norms(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The layer norm of each chosen sublayer."""
    return [Place(sublayer.norm, "replacement", sublayer) for sublayer in select_sublayers(config, sublayers)]


def inputs(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The input of each stack that the configuration names."""
    ends = [sublayer for sublayer in sublayers if sublayer.kind == "final" and sublayer.stack in config.stacks]
    return [Place(sublayer.stack_path, "before", sublayer) for sublayer in ends]


PLACES: dict[str, Callable[[Any, list[Sublayer]], list[Place]]] = {
    "before": inputs,
    "beside": linears_by_name,
    "after": ends_of_sublayers,
    "norm": norms,
    "weights": lambda config, sublayers: [],
}
"""The places of an adapter by its position."""
