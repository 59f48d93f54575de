"""The tables of `benchmarks.factorized`: ratios to each contender, memory, and the bars with their counts.

A bar is held if the median of the ratios is at most its limit, "within noise" if only their lower quartile is or if
both compute the same plan, and else missed; a missed case is listed with its operations and the bytes that they move.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any, NamedTuple

from adapters.tables import render_table

FEW = 64
"""With at most this many tokens, several layers are timed together, and no fixed plans are compared."""

Row = dict[str, Any]
"""The record of one step of one layer, see `benchmarks.factorized.measured`."""


class Bar(NamedTuple):
    """A limit of the time of a network over that of the fastest of some contenders, in the rows to which it applies."""

    text: str
    applies: Callable[[Row], bool]
    against: str
    limit: float


def fewest_flops(row: Row) -> int:
    """The operations of the plan that has the fewest."""
    return min(flops for key, flops in row["flops"].items() if key.startswith("plan "))


BARS = (
    Bar(
        "up to 64 tokens half the time of building 4 products",
        lambda row: row["network"] == "4 products" and row["tokens"] <= FEW,
        "products",
        0.5,
    ),
    Bar("from 1,024 tokens on as fast as the best plan", lambda row: row["tokens"] > FEW, "plan ", 1.0),
    Bar(
        "training 1.05 of dense, if a plan has fewer operations",
        lambda row: row["step"] == "training" and fewest_flops(row) < row["flops"]["dense"],
        "dense",
        1.05,
    ),
    Bar(
        "decoding as fast as dense, if its weights have fewer bytes",
        lambda row: row["tokens"] == 1 and row["weights"]["network"] < row["weights"]["dense"],
        "dense",
        1.0,
    ),
)


def tables(rows: list[Row]) -> str:
    """Return all tables as text."""
    return "\n\n".join((ratio_table(rows), memory_table(rows), *bar_tables(rows)))


def best(row: Row, against: str) -> str:
    """Return the contender of the smallest median time among those whose name begins so; "" if there is none."""
    found = {key: time for key, time in row["milliseconds"].items() if key.startswith(against)}
    return min(found, key=found.get, default="")


def ratio_table(rows: list[Row]) -> str:
    """The time of each network over those of what it is compared with; a column for each step."""
    lines = []
    for (layer, network), group in groupby(rows, key=lambda row: (row["layer"], row["network"])):
        steps = list(group)
        for against in ("dense", "products", "low rank", "plan "):
            found = [best(row, against) for row in steps]
            if any(found):
                label = "best plan" if against == "plan " else against
                cells = [f"{row['ratios'][key][0]:.2f}" if key else "" for row, key in zip(steps, found, strict=True)]
                lines.append([layer, network, label, *cells])
    steps = rows[: len(lines[0]) - 3]
    header = [f"{row['tokens']:,}" if row["step"] == "forward" else f"training, {row['tokens']:,}" for row in steps]
    title = "Time of the network / time of another, by tokens of a forward pass or a training step"
    return render_table(title, ["layer", "network", "another", *header], lines)


def memory_table(rows: list[Row]) -> str:
    """MiB of the weights, and of the peak of a training step."""
    lines = [
        [row["layer"], row["network"], key, *(f"{size / 2**20:.2f}" for size in (row["weights"][key], peak))]
        for row in rows
        if row["step"] == "training"
        for key, peak in row["peak"].items()
    ]
    header = ["layer", "network", "contender", "weights", "peak"]
    return render_table("MiB of weights, and of a training step", header, lines)


def bar_tables(rows: list[Row]) -> list[str]:
    """The number of cases that hold each bar, and the cases that do not."""
    summary, details = [], []
    for number, bar in enumerate(BARS, start=1):
        states = {"held": 0, "within noise": 0, "missed": 0}
        compared = [(row, best(row, bar.against)) for row in rows if bar.applies(row)]
        for row, key in compared:
            median, low, _ = row["ratios"][key]
            same_plan = key == f"plan {row['plan']}"
            state = "held" if median <= bar.limit else "within noise" if low <= bar.limit or same_plan else "missed"
            states[state] += 1
            if state == "missed":
                details.append(_missed(number, row, key, f"{median:.2f}"))
        worst = max((row["ratios"][key][0] for row, key in compared), default=0.0)
        summary.append([str(number), bar.text, f"{bar.limit:.2f}", f"{worst:.2f}", *map(str, states.values())])
    header = ["", "bar", "limit", "worst", "held", "within noise", "missed"]
    header_of_details = ["bar", "layer", "network", "tokens", "plan", "against", "ratio", "MFLOP", "MB moved"]
    found = [render_table("Bars, as ratios of times; the number of cases", header, summary)]
    if details:
        found.append(render_table("Missed: operations and bytes, network / other", header_of_details, details))
    return found


def _missed(bar: int, row: Row, key: str, ratio: str) -> list[str]:
    counts = [f"{row[count]['network'] / 1e6:,.1f} / {row[count][key] / 1e6:,.1f}" for count in ("flops", "moved")]
    step = f"{row['tokens']:,}" if row["step"] == "forward" else f"training {row['tokens']:,}"
    other = key.removeprefix("plan ")
    return [str(bar), row["layer"], row["network"], step, row["plan"], other, ratio, *counts]
