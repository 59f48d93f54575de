"""Print a table of choices for one linear layer, a row for each number of cores, rank and shape mode.

    python -m t3nsor.describe 768 3072
    python -m t3nsor.describe 768 3072 --d 2 3 4 --rank 4 8 16 --shape-mode cheapest ascending --tokens 4096

The default shape mode is that of a delta beside a frozen weight; `TTLinear` in place of a weight has "ascending". Flops
are per token of a batch, by the strategy that the cost model expects to be the fastest.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence

from ..cheap_shapes import DELTA_SHAPE_MODE, LAYER_SHAPE_MODES
from ..linear import TTLinear
from . import Description, by, describe


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the requested table and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m t3nsor.describe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("in_features", type=int)
    parser.add_argument("out_features", type=int)
    parser.add_argument("--d", type=int, nargs="+", default=[2, 3, 4], help="how many cores")
    parser.add_argument("--rank", type=int, nargs="+", default=[2, 4, 8, 16], help="ranks, clipped at each bond")
    parser.add_argument(
        "--shape-mode", nargs="+", default=[DELTA_SHAPE_MODE], choices=LAYER_SHAPE_MODES, metavar="MODE"
    )
    parser.add_argument("--tokens", type=int, default=1024, help="vectors in a batch")
    options = parser.parse_args(arguments)
    try:
        described = [
            (
                mode,
                describe(
                    TTLinear(
                        options.in_features,
                        options.out_features,
                        d=d,
                        tt_rank=rank,
                        shape_mode=mode,
                        device="meta",
                    ),
                    options.tokens,
                ),
            )
            for mode, d, rank in itertools.product(options.shape_mode, options.d, options.rank)
        ]
    except ValueError as error:
        parser.error(str(error))
    print(choices_table(described))
    return 0


def choices_table(described: Sequence[tuple[str, Description]]) -> str:
    """Return pairs of a shape mode and a description of one layer as aligned text, the dense layer first."""
    first = described[0][1]
    header = [
        "shape mode",
        "out x in",
        "ranks",
        "parameters",
        "compression",
        "flops",
        "strategy",
    ]
    M, N = first.shape
    rows = [
        [
            "dense",
            f"{M} x {N}",
            "",
            f"{first.dense_parameters:,}",
            "1.0",
            f"{first.dense.flops / first.tokens:,.0f}",
            "",
        ]
    ]
    for mode, description in described:
        m, n = description.raw_shape
        chosen = next(cost for cost in description.costs if cost.strategy == description.chosen)
        rows.append(
            [
                mode,
                f"{by(m)} x {by(n)}",
                ",".join(map(str, description.ranks)),
                f"{description.parameters:,}",
                f"{description.compression:,.1f}",
                f"{chosen.flops / description.tokens:,.0f}",
                chosen.strategy,
            ]
        )
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    numeric = range(3, 6)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    )


if __name__ == "__main__":
    sys.exit(main())
