"""The command-line options of all benchmarks."""

import argparse
from pathlib import Path


def parser_of(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for `python -m module` with the common options."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="threads of torch; chosen by torch by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    return parser
