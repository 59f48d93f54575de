"""Compare runs.

    python -m seq2seq.report outputs/                   writes outputs/report/
    python -m seq2seq.report outputs/ --out docs/results/demo
    python -m seq2seq.report outputs/ --runs 'tt_*' 'demo/*/seed-0' --reference "full fine-tuning"

Collects the runs below a directory and writes report.md, index.html (self-contained), results.tex (tables for LaTeX
with booktabs), results.csv (a row per method and task), runs.csv (a row per run) and the plots (PNG, PDF and SVG). Exit
status 2: there is nothing to compare.
"""

import argparse
import sys
from pathlib import Path

from adapters import ConfigurationError
from seq2seq.report.page import write_comparison


def main(arguments: list[str] | None = None) -> int:
    """Write the report and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m seq2seq.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="a directory that contains run folders at any depth")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the directory of the report (default: ROOT/report)")
    parser.add_argument(
        "--runs", nargs="+", default=(), metavar="PATTERN", help="only runs whose path, or a folder of it, matches"
    )
    parser.add_argument(
        "--reference", metavar="METHOD", help="the method that others are compared with (default: the best of a table)"
    )
    options = parser.parse_args(arguments)
    try:
        print(write_comparison(options.root, options.out or options.root / "report", options.runs, options.reference))
    except ConfigurationError as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
