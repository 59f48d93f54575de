"""Score saved predictions.

    python -m seq2seq.swipe.evaluate outputs/swipe_qwerty outputs/swipe_ensemble
    python -m seq2seq.swipe.evaluate machine_1/swipe_qwerty machine_2/swipe_qwerty --split test
    python -m seq2seq.swipe.evaluate outputs/swipe_qwerty --against outputs/swipe_templates

Prints the metrics of each run and split, and of each layout if there are several, with their standard errors over rows.
Folders of the same configuration are parts of one run and merge. With --against, also the paired differences to another
run on the same rows, with 95 % intervals of 10,000 bootstrap samples. Exit status 2: the predictions cannot be scored.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adapters import ConfigurationError
from adapters.tables import render_table
from seq2seq.swipe.metrics import ERROR_METRICS, Difference, Row, paired_differences, scores, standard_errors
from seq2seq.swipe.predictions import Predictions, read_predictions

NAMES = {
    "swipe_mrr": "swipe MRR",
    "mrr": "MRR",
    "accuracy_1": "top 1",
    "accuracy_3": "top 3",
    "accuracy_4": "top 4",
    "character_error_rate": "letter errors",
}
"""The metrics of the tables and their headings."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.swipe.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("predictions", type=Path, nargs="+", help="run folders, or files of predictions in them")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--against", type=Path, nargs="+", default=(), help="the run to compare with")
    options = parser.parse_args(arguments)
    try:
        tables = of_split(read_predictions(options.predictions), options.split)
        print(metrics_table(tables))
        if options.against:
            print("\n" + differences_table(tables, of_split(read_predictions(options.against), options.split)))
    except ConfigurationError as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    return 0


def of_split(tables: Sequence[Predictions], split: str | None) -> list[Predictions]:
    """The tables of one split, or of all.

    Raises:
        ConfigurationError: there are none.
    """
    found = [table for table in tables if split in (None, table.split)]
    if not found:
        known = ", ".join(sorted({table.split for table in tables}))
        raise ConfigurationError(f"Option --split names a split with predictions; got {split!r}: there are {known}.")
    return found


def metrics_table(tables: Sequence[Predictions]) -> str:
    """A line for each run, split and layout: metrics and standard errors."""
    cells = [
        [table.name, table.split, layout, str(len(rows)), *metric_cells(rows)]
        for table in tables
        for layout, rows in by_layout(table.rows).items()
    ]
    header = ["run", "split", "layout", "rows", *NAMES.values()]
    return render_table("Metrics, with standard errors over rows", header, cells)


def by_layout(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All rows, then those of each layout if there are several."""
    layouts = sorted({row["layout"] for row in rows})
    if len(layouts) == 1:
        return {layouts[0]: [*rows]}
    return {"all": [*rows], **{layout: [row for row in rows if row["layout"] == layout] for layout in layouts}}


def metric_cells(rows: Sequence[Row]) -> list[str]:
    values, errors = scores(rows), standard_errors(rows)
    return [f"{values[name]:.3f} ± {errors[name]:.3f}" if len(rows) > 1 else f"{values[name]:.3f}" for name in NAMES]


def differences_table(tables: Sequence[Predictions], references: Sequence[Predictions]) -> str:
    """A line for each run, split and metric: by how much it exceeds that of the reference on the same split.

    Raises:
        ConfigurationError: there is not one reference of each split, or it has other rows.
    """
    cells = []
    for table in tables:
        found = [reference for reference in references if reference.split == table.split]
        if len(found) != 1:
            names = ", ".join(reference.name for reference in found) or "none"
            raise ConfigurationError(
                f"Option --against is one run with predictions of each split; got {names} for split {table.split!r}: "
                "name one, or choose a split with --split."
            )
        differences = paired_differences(table.rows, found[0].rows)
        cells += [
            [table.name, found[0].name, table.split, heading, *difference_cells(name, differences[name])]
            for name, heading in NAMES.items()
        ]
    header = ["run", "against", "split", "metric", "difference", "95 % interval", ""]
    return render_table("Paired differences", header, cells)


def difference_cells(name: str, difference: Difference) -> list[str]:
    """The difference, its interval, and whether it is better or worse: nothing if the interval contains 0."""
    interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
    better = (difference.value > 0) != (name in ERROR_METRICS)
    verdict = "" if difference.low <= 0 <= difference.high else "better" if better else "worse"
    return [f"{difference.value:+.3f}", interval, verdict]


if __name__ == "__main__":
    sys.exit(main())
