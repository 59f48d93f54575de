"""Files that are whole or not there: a killed run leaves no half file."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path``, then move it into place."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)
