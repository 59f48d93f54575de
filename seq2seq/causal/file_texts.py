"""Texts of files, one at a time: a .txt file is one text, and so is each row of a file of rows.

A .txt file comes in parts, so that it is never in memory as a whole.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from adapters import ConfigurationError
from seq2seq import PROJECT
from seq2seq.errors import refusing
from seq2seq.tasks.files import READERS, read_rows

EMPTY = "a file has text; got {}, which is empty: leave it out"
PART = 2**20
"""Characters of a file that are read at once."""
Text = str | Iterator[str]
"""A text, or its parts one after another, which are read before the next text."""


def files_of(source: str, key: str) -> list[Path]:
    """The files of a path or a pattern, here or in the project, in the order of their names.

    Raises:
        ConfigurationError: there is none, or one is of an unknown format.
    """
    given = os.path.expanduser(source)
    project = os.path.join(glob.escape(str(PROJECT)), "")
    patterns = (glob.escape(given), given, project + glob.escape(given), project + given)
    names = next(filter(None, (sorted(glob.glob(pattern, recursive=True)) for pattern in patterns)), [])
    paths = [Path(name) for name in names if os.path.isfile(name)]
    if not paths:
        raise ConfigurationError(
            f"Key {key!r} names files, or a data set such as wiki2 or dataset:roneneldan/TinyStories; got {source!r}, "
            "which matches no file: check the path."
        )
    for path in paths:
        if path.suffix not in (".txt", *READERS):
            raise ConfigurationError(
                f"Key {key!r} names files with one of the suffixes .txt, {', '.join(READERS)}; got {str(path)!r}: "
                "convert or rename it."
            )
    return paths


def file_texts(path: Path, column: str, key: str) -> Iterator[Text]:
    """The texts of a file; ``key`` names it in error messages.

    Raises:
        ConfigurationError: it is not UTF-8, is empty, or a row has no text.
    """
    if path.suffix == ".txt":
        yield parts_of(path, key)
        return
    with refusing(key, path):
        yield from texts_of_rows((row.get(column) for row in read_rows(path)), column, str(path))


def parts_of(path: Path, key: str) -> Iterator[str]:
    """The text of a file in parts of at most PART characters; errors as for ``file_texts``."""
    found = False
    with refusing(key, path), path.open(encoding="utf-8-sig") as file:
        while part := file.read(PART):
            found = found or bool(part.strip())
            yield part
        if not found:
            raise ValueError(EMPTY.format(path))


def texts_of_rows(cells: Iterable[Any], column: str, place: str) -> Iterator[str]:
    """The texts in a column; blank ones are left out.

    Raises:
        ValueError: a cell is no text, or all are blank.
    """
    found = False
    for number, text in enumerate(cells, 1):
        if not isinstance(text, str):
            raise ValueError(
                f"each row has a text in the column {column!r}; got {text!r} in row {number} of {place}: set "
                "corpus.column, or complete the row"
            )
        if text.strip():
            found = True
            yield text
    if not found:
        raise ValueError(EMPTY.format(place))
