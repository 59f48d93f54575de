"""The axis of trainable parameters: logarithmic, at least a decade wide, with a column of its own for zero.

     |     //
0.42 | o   //        o
     +-----//------------------
       0       10^3     10^4
"""

import math
from collections.abc import Sequence
from typing import Any

MARGIN = 0.15
"""Share of the width that is free beside the outermost points."""
ZERO_COLUMN = 0.08
"""Share of the width of the numbers above zero that the column of zero has."""


class ParameterAxis:
    """Places of parameter counts; ``place`` gives the coordinate of a count.

    Args:
        counts: parameter counts, 0 or more.
    """

    def __init__(self, counts: Sequence[float]) -> None:
        self.counts = list(counts)
        exponents = [math.log10(count) for count in counts if count > 0]
        low, high = (min(exponents), max(exponents)) if exponents else (0.0, 0.0)
        missing = max(0.0, 1.0 - (high - low)) / 2  # of a whole decade
        margin = MARGIN * max(high - low, 1.0)
        self.low, self.high = low - missing - margin, high + missing + margin
        self.any_zero = len(exponents) < len(counts)
        self.zero = 10 ** (self.low - ZERO_COLUMN * (self.high - self.low))

    def place(self, count: float) -> float:
        """The coordinate at which a count is drawn."""
        return count if count > 0 else self.zero

    def prepare(self, axes: Any) -> None:
        """Set scale, limits, ticks and label; mark where the axis is broken."""
        from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter

        axes.set_xscale("log")
        column = 1.6 * ZERO_COLUMN * (self.high - self.low) if self.any_zero else 0.0
        axes.set_xlim(10 ** (self.low - column), 10**self.high)
        decades = range(math.ceil(self.low), math.floor(self.high) + 1)
        steps = (1, 2, 5) if self.high - self.low < 2 else (1,)
        ticks = [n * 10**e for e in range(math.floor(self.low), math.ceil(self.high)) for n in steps]
        ticks = [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]
        small = [n * 10.0**e for e in range(decades.start - 1, decades.stop) for n in range(2, 10)]
        labels = [
            f"{tick:,.15g}" if self.high - self.low < 2 else f"$10^{{{round(math.log10(tick))}}}$" for tick in ticks
        ]
        if self.any_zero:
            ticks, labels = [self.zero, *ticks], ["0", *labels]
            edge = 10 ** (self.low - 0.1 * column)
            axes.axvspan(axes.get_xlim()[0], edge, color="#f1f3f5", zorder=0)
            axes.axvline(edge, color="#9aa0a8", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            axes.plot(
                [edge, edge], [0, 1], transform=axes.get_xaxis_transform(), linestyle="none", marker=[(-1, -2), (1, 2)],
                color="black", markersize=8, clip_on=False, label="_break"
            )  # fmt: skip
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FixedFormatter(labels))
        axes.xaxis.set_minor_locator(FixedLocator([n for n in small if self.low <= math.log10(n) <= self.high]))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("trainable parameters")
