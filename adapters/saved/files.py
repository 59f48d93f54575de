"""Files that are complete or absent: a killed process leaves no half-written file."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write a file next to ``path``, then move it into place."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)
