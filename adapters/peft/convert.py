"""python -m adapters.peft.convert SOURCE DESTINATION [--base BASE]

Convert a folder of adapters.save to one of PEFT, or a folder of our PEFT tuner to one of adapters.save. The
adapter_config.json in SOURCE determines the direction. DESTINATION is a new or empty folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adapters.peft.conversion import from_peft, to_peft
from adapters.saved.folder import CheckpointError, FolderKind, folder_kind, read_config


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Convert; return the error message for ``sys.exit``, or None."""
    parser = argparse.ArgumentParser(prog="python -m adapters.peft.convert", description=__doc__.partition("\n\n")[2])
    parser.add_argument("source", type=Path, help="folder of the adapter to convert")
    parser.add_argument("destination", type=Path, help="folder to create")
    parser.add_argument("--base", help="path or name of the base model; by default the one named in SOURCE")
    given = parser.parse_args(arguments)
    try:
        kind = folder_kind(read_config(given.source), given.source)
        convert = to_peft if kind is FolderKind.NATIVE else from_peft
        convert(given.source, given.destination, given.base)
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"A conversion needs a writable destination; got {given.destination} ({error}): choose another one."
    return None


if __name__ == "__main__":
    sys.exit(main())
