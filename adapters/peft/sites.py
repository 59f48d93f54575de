"""The places of the targets of one PEFT adapter: the path of each is its site, see ``adapters.base.sites``."""

from collections.abc import Iterable

from adapters.base.places import Place
from adapters.base.sites import unique_sites
from adapters.base.sublayers import Sublayer


def places_of(paths: Iterable[str]) -> list[Place]:
    """The place of each target of one adapter."""
    return [_place(path, *site) for path, site in unique_sites(paths).items()]


def _place(path: str, stack: str, layer: int | None, kind: list[str]) -> Place:
    *inner, name = kind or [""]
    return Place(path, "beside", Sublayer(stack, layer, "-".join(inner)), name)
