"""Which way each of the three contractions of a step takes: the product, the gradient of x, those of the cores.

    Plan.parse("halves@1", 3)                    one way for all three, in a chain of three cores
    Plan.parse("fused, fused, halves@1", 3)      product, gradient of x, gradients of the cores

The other texts, "auto" and "timed", are resolved in `planner`.
"""

from dataclasses import dataclass
from functools import lru_cache

from .chains import Sizes
from .halves import Halves
from .materialised import Fused, Materialised
from .sequential import Sequential
from .strategy import Strategy

WIDEST_EXPANSION = 256
"""The widest low-rank factor N1 R M2 that is worth to be written out."""

NAMES = ("sequential", "sequential_reversed", "halves@k", "expanded@k", "materialised", "fused")


@dataclass(frozen=True)
class Plan:
    """A way for each contraction; print it, compare it, or give it to `matmul`.

    The gradients of the cores have no frozen weight to be fused with: there "fused" is "materialised".
    """

    product: Strategy
    input_gradient: Strategy
    core_gradients: Strategy

    def __post_init__(self) -> None:
        if isinstance(self.core_gradients, Fused):
            object.__setattr__(self, "core_gradients", Materialised())

    @property
    def ways(self) -> tuple[Strategy, Strategy, Strategy]:
        """For the product, the gradient of x and those of the cores."""
        return self.product, self.input_gradient, self.core_gradients

    def __str__(self) -> str:
        names = [str(way) for way in self.ways]
        return names[0] if len(set(names)) == 1 else ", ".join(names)

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str, cores: int) -> "Plan":
        """The plan that a text stands for, for a chain of so many cores.

        Raises:
            ValueError: a way is unknown, its bond is not an interior one, or there are neither one nor three ways.
        """
        names = [name.strip() for name in text.split(",")]
        if len(names) not in (1, 3):
            raise ValueError(
                "A plan names one way, or three for the product, the gradient of x and those of the cores, but "
                f"{text!r} has {len(names)}; write e.g. 'fused, fused, halves@1'."
            )
        return cls(*[_parse_way(name, cores, text) for name in names] * (3 // len(names)))


def _parse_way(name: str, cores: int, text: str) -> Strategy:
    kind, _, bond = name.partition("@")
    simple = {"sequential": Sequential(), "sequential_reversed": Sequential(reverse=True)}
    simple |= {"materialised": Materialised(), "fused": Fused()}
    if name in simple:
        return simple[name]
    if kind not in ("halves", "expanded"):
        raise ValueError(
            f"plan must be one of auto, timed, {', '.join(NAMES)}, or three of the latter, but {text!r} was given; "
            "choose one of them."
        )
    if not bond.isdecimal() or not 1 <= int(bond) < cores:
        raise ValueError(
            f"The bond of {kind}@k must lie between two of the {cores} cores, but {name!r} was given; "
            + (f"use {kind}@1 to {kind}@{cores - 1}." if cores > 1 else "a single core has none, so use another way.")
        )
    return Halves(int(bond), expanded=kind == "expanded")


def ways(sizes: Sizes, fusable: bool) -> list[Strategy]:
    """All ways that may be worth a thought for the product and the gradient of x."""
    d = len(sizes.rows)
    listed: list[Strategy] = [Sequential(), Sequential(reverse=True)]
    for bond in range(1, d):
        listed.append(Halves(bond))
        _, N1, M2, _, R = sizes.split(bond)
        if M2 > 1 and N1 * R * M2 <= WIDEST_EXPANSION:
            listed.append(Halves(bond, expanded=True))
    return [*listed, Fused() if fusable else Materialised()]
