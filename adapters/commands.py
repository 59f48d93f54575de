"""What commands that write a folder have in common: a refusal is one sentence and exit status 2."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from adapters.base.kept_base import MergeError
from adapters.saved.folder import CheckpointError
from adapters.validation import ConfigurationError


def exit_status(write: Callable[[], object], destination: Path) -> int:
    """Call ``write``, which makes the folder ``destination``; print why if it is refused.

    Returns:
        0, or 2 if nothing was written.
    """
    try:
        write()
    except (ConfigurationError, CheckpointError, MergeError) as error:
        print(f"Refused: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        given = f"{destination} ({error})"
        print(f"Refused: An export needs a writable destination; got {given}: choose another one.", file=sys.stderr)
        return 2
    return 0


def at_least(low: float) -> Callable[[str], int]:
    """The type of an option of ``argparse`` that is an integer from ``low`` on."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < low:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {low:.0f}; got {text!r}: raise it")
        return number

    return read
