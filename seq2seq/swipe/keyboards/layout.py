"""A keyboard layout: keys with boxes in pixels, and the letters that are typed on them.

Letters are numbered by their place in ``alphabet``. Every length that a model sees is in key widths, the median width of
the letters' keys, and every position is measured from the top left corner of the keyboard, so that a layout of any size
gives the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Key:
    """A key: its label, which is the letter that it types or a name such as "shift", and its box in pixels.

    Args:
        x, y: the top left corner.
    """

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """A layout.

    Args:
        name: as files and rows of traces name it.
        language: a code such as "en".
        alphabet: the letters that can be typed, each of which has a key.
        keys: all keys.
    """

    name: str
    language: str
    alphabet: str
    keys: tuple[Key, ...]

    @cached_property
    def boxes(self) -> np.ndarray:
        """The letters' keys (letters, 4), float32, in key widths: x and y of the centre, width, height."""
        by_label = {key.label: key for key in self.keys}
        found = [by_label[letter] for letter in self.alphabet]
        rows = [(key.x + key.width / 2, key.y + key.height / 2, key.width, key.height) for key in found]
        return (np.array(rows) / self.key_width).astype(np.float32)

    @cached_property
    def key_width(self) -> float:
        """The median width of the letters' keys, in pixels."""
        return float(np.median([key.width for key in self.keys if key.label in self.alphabet]))

    @cached_property
    def size(self) -> tuple[float, float]:
        """Width and height of the keyboard, in pixels."""
        return max(key.x + key.width for key in self.keys), max(key.y + key.height for key in self.keys)


def layout_from_rows(
    name: str,
    language: str,
    rows: Sequence[str],
    shifts: Sequence[float] | None = None,
    key_width: float = 36.0,
    row_height: float = 62.0,
) -> Layout:
    """A layout of rows of letters.

    Args:
        rows: the letters of each row, from the top.
        shifts: how far each row begins from the left, in key widths; by default rows are centred.
    """
    widest = max(map(len, rows))
    starts = shifts or [(widest - len(row)) / 2 for row in rows]
    keys = tuple(
        Key(letter, (start + column) * key_width, line * row_height, key_width, row_height)
        for line, (row, start) in enumerate(zip(rows, starts, strict=True))
        for column, letter in enumerate(row)
    )
    return Layout(name, language, "".join(sorted("".join(rows))), keys)
