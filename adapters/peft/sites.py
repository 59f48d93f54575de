"""The site of a linear in a model of any architecture: its layer and its kind of matrix, read from its path.

    path                                       layer                matrix
    encoder.block.3.layer.0.SelfAttention.q    encoder.block, 3     layer.SelfAttention.q
    decoder.block.0.layer.0.SelfAttention.q    decoder.block, 0     layer.SelfAttention.q
    model.layers.1.mlp.up_proj                 model.layers, 1      mlp.up_proj
    lm_head                                    none                 lm_head

The layer is the first number in the path with the part before it; the kind of matrix is the part after it, without
numbers. If a layer has several targets of one kind, such as experts, these keep their numbers. So a layer and a kind of
matrix determine one linear, and in a T5 both are those of ``adapters.base.places``.
"""

from collections import Counter
from collections.abc import Iterable

from adapters.base.places import Place
from adapters.base.sublayers import Sublayer


def places_of(paths: Iterable[str]) -> list[Place]:
    """The place of each target of one adapter."""
    split = [(path, *_split(path)) for path in paths]
    counts = Counter((stack, layer, _without_numbers(rest)) for _, stack, layer, rest in split)
    return [_place(*parts, counts) for parts in split]


def _split(path: str) -> tuple[str, int | None, list[str]]:
    """The parts before the first number, the number, and the parts after it."""
    parts = path.split(".")
    for position, part in enumerate(parts):
        if part.isdigit():
            return "-".join(parts[:position]), int(part), parts[position + 1 :]
    return "", None, parts


def _without_numbers(parts: list[str]) -> tuple[str, ...]:
    return tuple(part for part in parts if not part.isdigit())


def _place(path: str, stack: str, layer: int | None, rest: list[str], counts: Counter) -> Place:
    kind = _without_numbers(rest)
    *inner, name = (kind if counts[stack, layer, kind] == 1 else rest) or [""]
    return Place(path, "beside", Sublayer(stack, layer, "-".join(inner), norm=""), name)
