"""The site of a linear in a model of any architecture: its layer and its kind of matrix, read from its path.

    path                                       layer                matrix
    encoder.block.3.layer.0.SelfAttention.q    encoder.block, 3     layer.SelfAttention.q
    decoder.block.0.layer.0.SelfAttention.q    decoder.block, 0     layer.SelfAttention.q
    model.layers.1.mlp.up_proj                 model.layers, 1      mlp.up_proj
    lm_head                                    none                 lm_head

The layer is the first number in the path with the part before it; the kind of matrix is the part after it, without
numbers. If a layer has several linears of one kind, such as experts, these keep their numbers. So a layer and a kind of
matrix determine one linear.
"""

from collections import Counter
from collections.abc import Iterable


def site_of_path(path: str) -> tuple[str, int | None, list[str]]:
    """The parts before the first number as one name without dots, the number, and the parts after it."""
    parts = path.split(".")
    for position, part in enumerate(parts):
        if part.isdigit():
            return "-".join(parts[:position]), int(part), parts[position + 1 :]
    return "", None, parts


def unique_sites(paths: Iterable[str]) -> dict[str, tuple[str, int | None, list[str]]]:
    """The site of each path as in ``site_of_path``, with numbers in the kind of matrix only where they are needed."""
    split = {path: site_of_path(path) for path in paths}
    counts = Counter((stack, layer, _without_numbers(rest)) for stack, layer, rest in split.values())
    return {
        path: (stack, layer, list(kind) if counts[stack, layer, kind := _without_numbers(rest)] == 1 else rest)
        for path, (stack, layer, rest) in split.items()
    }


def unique_site_names(paths: Iterable[str]) -> dict[str, str]:
    """A name without dots for the kind of matrix at each path, such as "mlp-up_proj"."""
    return {path: "-".join(kind) for path, (_, _, kind) in unique_sites(paths).items()}


def _without_numbers(parts: list[str]) -> tuple[str, ...]:
    return tuple(part for part in parts if not part.isdigit())
