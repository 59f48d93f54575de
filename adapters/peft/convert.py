"""python -m adapters.peft.convert SOURCE DESTINATION [--base BASE]

A folder of ``adapters.save`` becomes one of PEFT, and one of PEFT becomes one of ``adapters.save``; which of the two
SOURCE is, its adapter_config.json says.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from adapters.peft.conversion import from_peft, to_peft
from adapters.saved.checkpoint import CONFIG_NAME, CheckpointError


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Convert; returns the sentence about what does not fit, for ``sys.exit``, or None."""
    parser = argparse.ArgumentParser(prog="python -m adapters.peft.convert", description=__doc__.partition("\n\n")[2])
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--base", help="path or name of the base model")
    given = parser.parse_args(arguments)
    try:
        convert = from_peft if _is_of_peft(given.source) else to_peft
        convert(given.source, given.destination, given.base)
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"A conversion is written where there is room for it; {given.destination} is not: {error}."
    return None


def _is_of_peft(directory: Path) -> bool:
    try:
        return "peft_type" in json.loads((directory / CONFIG_NAME).read_text())
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"A folder with an adapter has {CONFIG_NAME}; {directory} has none that can be read ({error}): "
            "check the path."
        ) from None


if __name__ == "__main__":
    sys.exit(main())
