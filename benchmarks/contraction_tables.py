"""Print the tables and draw the plot of `benchmarks.contraction` from its JSON.

python -m benchmarks.contraction_tables outputs/benchmarks/contraction.json
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OURS, LORA = "tt_lora", "PEFT LoRA"
SINGLE = "way "
"""The prefix of single strategies among the keys of the recorded files."""
CLOSE = 1.05
"""The target for the time of "auto" as a multiple of that of the best single strategy."""
FEW = 1 / 5
"""The fraction of LoRA's trainable parameters up to which a delta counts as small."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of a file and draw its plot in the same folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contraction_tables", description=__doc__)
    parser.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    show(json.loads(options.file.read_text(encoding="utf-8")), options.file.parent)
    return 0


def show(record: dict[str, Any], folder: Path) -> None:
    """Print the tables, write them as Markdown, and draw the plot."""
    cells = sorted(record["cells"], key=in_order)
    tables = [summary(cells), by_layer(cells)]
    if any("core after core" in cell["seconds"] for cell in cells):
        tables.append(others(cells))
    console = Console()
    for table in tables:
        console.print(table)
    (folder / "contraction.md").write_text("\n\n".join(markdown(table) for table in tables) + "\n", encoding="utf-8")
    draw(cells, folder / "contraction.png")
    console.print(f"Written: {folder}/contraction.json, contraction.md, contraction.png")


def in_order(cell: dict[str, Any]) -> tuple:
    """Return the sort key of a cell in the tables: float32 and the cheapest shapes first."""
    inside, outside = map(int, cell["layer"].split("x"))
    first = cell["dtype"] != "float32", cell["mode"] != "cheapest"
    return *first, inside * outside, inside, cell["tokens"], cell["d"], cell["rank"]


def single_strategies(cell: dict[str, Any]) -> dict[str, float]:
    """Return the median seconds of the single strategies."""
    return {name: times[0] for name, times in cell["seconds"].items() if name.startswith(SINGLE)}


def regret(cell: dict[str, Any]) -> float:
    """Return the time of "auto" as a multiple of that of the best single strategy."""
    return cell["seconds"]["auto"][0] / min(single_strategies(cell).values())


def regret_of_choice(cell: dict[str, Any]) -> float:
    """Return the same by the time of the chosen strategy itself, if it was also measured as a single one."""
    single = single_strategies(cell)
    return single.get(f"{SINGLE}{cell['plan']}", cell["seconds"]["auto"][0]) / min(single.values())


def ratio(cell: dict[str, Any], name: str, to: str = "frozen") -> float:
    """Return the median seconds of one candidate as a multiple of another's."""
    return cell["seconds"][name][0] / cell["seconds"][to][0]


def is_small(cell: dict[str, Any]) -> bool:
    """Return whether the delta has at most a fifth of LoRA's parameters."""
    return cell["parameters"]["auto"] <= FEW * cell["parameters"].get(LORA, 0)


def summary(cells: list[dict[str, Any]]) -> Table:
    """Return a table of "auto" against the best strategy, and against LoRA at a fifth of its parameters."""
    columns = ("dtype", "shapes", "cells", "within 5 %", "worst", "choice within 5 %", "choice, worst")
    table = Table(*columns, "against LoRA*", "worst*", "slower than LoRA*", title="auto")
    for dtype, mode in dict.fromkeys((cell["dtype"], cell["mode"]) for cell in cells):
        some = [cell for cell in cells if (cell["dtype"], cell["mode"]) == (dtype, mode)]
        regrets, choices = [regret(cell) for cell in some], [regret_of_choice(cell) for cell in some]
        small = [ratio(cell, OURS, LORA) for cell in some if is_small(cell) and cell["tokens"] >= 1024]
        table.add_row(
            dtype,
            mode,
            str(len(some)),
            f"{sum(value <= CLOSE for value in regrets) / len(regrets):.0%}",
            f"{max(regrets):.2f}",
            f"{sum(value <= CLOSE for value in choices) / len(choices):.0%}",
            f"{max(choices):.2f}",
            median_of(small),
            f"{max(small):.2f}" if small else "",
            f"{sum(value > 1 for value in small)} of {len(small)}",
        )
    table.caption = "* cells with at most a fifth of LoRA's parameters and at least 1,024 tokens"
    return table


def by_layer(cells: list[dict[str, Any]]) -> Table:
    """Return a table of the median ratio to the frozen layer over the numbers of cores, by layer, tokens and rank."""
    ranks = sorted({cell["rank"] for cell in cells})
    columns = [f"rank {rank}" for rank in ranks]
    table = Table("dtype", "layer", "tokens", "frozen ms", "LoRA r=8", "shapes", *columns, title="ratios to frozen")
    keys = dict.fromkeys((cell["dtype"], cell["layer"], cell["tokens"], cell["mode"]) for cell in cells)
    for key in keys:
        some = [c for c in cells if (c["dtype"], c["layer"], c["tokens"], c["mode"]) == key]
        dtype, layer, tokens, mode = key
        frozen = statistics.median(cell["seconds"]["frozen"][0] for cell in some)
        lora = [ratio(cell, LORA) for cell in some if LORA in cell["seconds"]]
        table.add_row(
            dtype,
            layer,
            f"{tokens:,}",
            three_digits(frozen * 1e3),
            median_of(lora),
            mode,
            *(median_of([ratio(cell, OURS) for cell in some if cell["rank"] == rank]) for rank in ranks),
        )
    return table


def others(cells: list[dict[str, Any]]) -> Table:
    """Return a table of other libraries and plain einsum code, as ratios to the frozen layer, where measured."""
    cells = [cell for cell in cells if "core after core" in cell["seconds"]]
    names = list(dict.fromkeys(n for c in cells for n in c["seconds"] if not n.startswith(SINGLE) and n != "frozen"))
    table = Table("dtype", "layer", "tokens", *names, title="ratios to frozen, d = 3, rank 8, ascending")
    for cell in cells:
        values = (f"{ratio(cell, name):.2f}" if name in cell["seconds"] else "" for name in names)
        table.add_row(cell["dtype"], cell["layer"], f"{cell['tokens']:,}", *values)
    return table


def three_digits(value: float) -> str:
    """Return a positive number with three significant digits, or more if its integer part has more."""
    return f"{value:,.{max(2 - math.floor(math.log10(value)), 0)}f}"


def median_of(values: list[float]) -> str:
    """Return the median with two decimals; empty for no values."""
    return f"{statistics.median(values):.2f}" if values else ""


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    rows = list(zip(*columns, strict=True))
    lines = [line(row) for row in rows]
    lines.insert(1, line(["---"] * len(columns)))
    return "\n".join([f"**{table.title}**", "", *lines, *(["", str(table.caption)] if table.caption else [])])


def line(values: Iterable[str]) -> str:
    """Return one row of Markdown."""
    return f"| {' | '.join(values)} |"


def draw(cells: list[dict[str, Any]], path: Path) -> None:
    """Plot time against trainable parameters, one panel for each dtype and number of tokens."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    dtypes, tokens = dict.fromkeys(cell["dtype"] for cell in cells), sorted({cell["tokens"] for cell in cells})
    shares = [cell["parameters"]["auto"] / cell["parameters"].get(LORA, 1) for cell in cells]
    few, many = 0.7 * min(shares), 1.5 * max(shares)
    size = (3.4 * len(tokens), 3.1 * len(dtypes))
    figure, axes = plt.subplots(len(dtypes), len(tokens), figsize=size, squeeze=False, sharex=True, sharey="row")
    colours = {"cheapest": "tab:blue", "ascending": "tab:orange"}
    for row, dtype in zip(axes, dtypes, strict=True):
        for axis, count in zip(row, tokens, strict=True):
            some = [cell for cell in cells if (cell["dtype"], cell["tokens"]) == (dtype, count)]
            axis.set_visible(bool(some))
            for mode in dict.fromkeys(cell["mode"] for cell in some):
                chosen = [cell for cell in some if cell["mode"] == mode]
                x = [cell["parameters"]["auto"] / cell["parameters"].get(LORA, 1) for cell in chosen]
                y = [ratio(cell, OURS) for cell in chosen]
                axis.scatter(x, y, s=9, alpha=0.7, color=colours.get(mode), label=f"tensor train, {mode} shapes")
            lora = [ratio(cell, LORA) for cell in some if LORA in cell["seconds"]]
            if lora:
                axis.axhline(statistics.median(lora), color="black", lw=0.8, ls="--", label="PEFT's LoRA, r = 8")
            axis.axhline(1, color="grey", lw=0.8, label="frozen layer")
            axis.axvspan(few, max(few, FEW), color="tab:green", alpha=0.08)
            axis.set(xlim=(few, many), xscale="log", yscale="log", title=f"{dtype}, {count:,} tokens")
            axis.set_yticks([1, 1.2, 1.5, 2, 3], ["1", "1.2", "1.5", "2", "3"])
            axis.minorticks_off()
    for axis in axes[-1]:
        axis.set_xlabel("parameters / LoRA's")
    for row in axes:
        row[0].set_ylabel("time / frozen layer")
    legend = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(legend.values(), legend.keys(), loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
