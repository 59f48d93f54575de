"""The places of an adapter's modules in a model.

    position "before"    the input of the encoder                     -> AdaptedInput.before
    position "beside"    the linears named by target_modules          -> AdaptedLinear.beside
    position "after"     the linear at the end of the sublayer        -> AdaptedLinear.after
    position "norm"      the sublayer's layer norm                    -> AdaptedLayerNorm.replacement
    position "weights"   none: the kind only decides which of the model's own parameters are trainable

A kind with other places overrides ``AdapterConfig.places``.
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
    """The linears that ``config.target_modules`` names; if it is None, those of the feed-forward sublayers."""
    chosen = select_sublayers(config, sublayers)
    if config.target_modules is None:
        chosen = [sublayer for sublayer in chosen if sublayer.kind == "feed_forward"]
        if not chosen:
            given = f"null with sublayers {list(config.sublayers)}"
            config.refuse("target_modules", "is the feed-forward linears by default", given, "name linears")
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
    """The layer norm of each selected sublayer."""
    return [Place(sublayer.norm, "replacement", sublayer) for sublayer in select_sublayers(config, sublayers)]


def inputs(config: Any, sublayers: list[Sublayer]) -> list[Place]:
    """The input of each selected stack."""
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
