"""Files that are complete or absent, and that others can read as the umask says.

a killed process      leaves no half-written file
safetensors           makes files of mode 600; they get that of any other new file, 644 for the usual umask
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write a file next to ``path``, then move it into place."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    set_default_mode(partial)
    os.replace(partial, path)


def set_default_mode(*paths: Path) -> None:
    """Give the files of this user the mode that the umask of the process gives new ones."""
    umask = os.umask(0o077)  # it can only be read by setting it
    os.umask(umask)
    for path in paths:
        with contextlib.suppress(PermissionError):
            path.chmod(0o666 & ~umask)
