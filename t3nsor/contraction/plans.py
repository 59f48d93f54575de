"""A plan: the strategy for each of the three contractions of a step.

    Plan.parse("halves@1", 3)                    one strategy for all three, in a chain of three cores
    Plan.parse("fused, fused, halves@1", 3)      product, gradient of x, gradients of the cores

The other plans that `matmul` accepts, "auto" and "timed", are resolved in `planner`.
"""

from dataclasses import dataclass
from functools import lru_cache

from .chains import Sizes
from .halves import ExpandedHalves, GroupedHalves
from .materialised import Fused, Materialised
from .sequential import Sequential
from .strategy import Strategy

WIDEST_EXPANSION = 256
"""The largest N1 R M2 for which "expanded" is a candidate."""

NAMES = ("sequential", "sequential_reversed", "halves@k", "expanded@k", "materialised", "fused")


@dataclass(frozen=True)
class Plan:
    """A strategy for each contraction; printable, comparable, and accepted by `matmul`.

    The gradients of the cores involve no frozen weight: there "fused" becomes "materialised".
    """

    product: Strategy
    input_gradient: Strategy
    core_gradients: Strategy

    def __post_init__(self) -> None:
        if isinstance(self.core_gradients, Fused):
            object.__setattr__(self, "core_gradients", Materialised())

    @property
    def strategies(self) -> tuple[Strategy, Strategy, Strategy]:
        """The strategies for the product, the gradient of x and the gradients of the cores."""
        return self.product, self.input_gradient, self.core_gradients

    def __str__(self) -> str:
        names = [str(strategy) for strategy in self.strategies]
        return names[0] if len(set(names)) == 1 else ", ".join(names)

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str, cores: int) -> "Plan":
        """Return the plan with this text for a chain of `cores` cores.

        Raises:
            ValueError: a strategy is unknown, its bond is not interior, or the text names neither one nor three.
        """
        names = [name.strip() for name in text.split(",")]
        if len(names) not in (1, 3):
            raise ValueError(
                "A plan names one strategy, or three for the product, the gradient of x and the gradients of the "
                f"cores; got {text!r} with {len(names)}: write e.g. 'fused, fused, halves@1'."
            )
        return cls(*[_parse_strategy(name, cores, text) for name in names] * (3 // len(names)))


def _parse_strategy(name: str, cores: int, text: str) -> Strategy:
    kind, _, bond = name.partition("@")
    simple = {"sequential": Sequential(), "sequential_reversed": Sequential(reverse=True)}
    simple |= {"materialised": Materialised(), "fused": Fused()}
    if name in simple:
        return simple[name]
    if kind not in ("halves", "expanded"):
        raise ValueError(
            f"plan must be one of auto, timed, {', '.join(NAMES)}, or three of the latter; got {text!r}: "
            "choose one of them."
        )
    if not bond.isdecimal() or not 1 <= int(bond) < cores:
        raise ValueError(
            f"The bond of {kind}@k must lie between two of the {cores} cores; got {name!r}: "
            + (f"use {kind}@1 to {kind}@{cores - 1}." if cores > 1 else "a single core has no bond, use another plan.")
        )
    return (GroupedHalves if kind == "halves" else ExpandedHalves)(int(bond))


def candidates(sizes: Sizes, fusable: bool) -> list[Strategy]:
    """Return the strategies that may be the fastest for the product and the gradient of x."""
    found: list[Strategy] = [Sequential(), Sequential(reverse=True)]
    for bond in range(1, len(sizes.rows)):
        found.append(GroupedHalves(bond))
        _, N1, M2, _, R = sizes.split(bond)
        if M2 > 1 and N1 * R * M2 <= WIDEST_EXPANSION:
            found.append(ExpandedHalves(bond))
    return [*found, Fused() if fusable else Materialised()]
