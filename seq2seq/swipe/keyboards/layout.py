"""A keyboard layout: keys with boxes in pixels, and the letters that are typed on them.

Letters are numbered by their place in ``alphabet``. Every length that a model sees is in key widths, the median width
of the letters' keys, and every position is measured from the top left corner of the keyboard, so that a layout of any
size gives the same numbers.

    {"name": "qwerty", "language": "en", "alphabet": "abcdefghijklmnopqrstuvwxyz",
     "keys": [["q", 0, 3, 36, 62], ...]}            label, x and y of the top left corner, width, height, in pixels
"""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from adapters.saved.files import replace_file
from adapters.validation import ConfigurationError, check_type, from_json, nearest_name, refuse
from seq2seq.swipe.keyboards.rules import check_alphabet, check_boxes, check_labels

FILES = Path(__file__).with_name("files")
SHIPPED = tuple(sorted(path.stem for path in FILES.glob("*.json")))
"""The names of the layouts that come with the library."""


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
        alphabet: the letters that can be typed, sorted, each of which has a key.
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

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each letter."""
        return {letter: number for number, letter in enumerate(self.alphabet)}


def layout_from_rows(
    name: str,
    language: str,
    rows: Sequence[str],
    shifts: Sequence[float] | None = None,
    key_width: float = 36.0,
    row_height: float = 62.0,
    top: float = 0.0,
) -> Layout:
    """A layout of rows of letters.

    Args:
        rows: the letters of each row, from the top.
        shifts: how far each row begins from the left, in key widths; by default rows are centred.
        key_width, row_height: of every key, in pixels.
        top: the height of the margin above the first row, in pixels.

    Raises:
        ConfigurationError: a letter is there twice, is not NFC or lowercase, or is of another script than the others.
    """
    widest = max(map(len, rows), default=0)
    starts = [(widest - len(row)) / 2 for row in rows] if shifts is None else shifts
    where = f"the layout {name!r}"
    if len(starts) != len(rows):
        refuse("shifts", "must have a number for each row", f"{len(starts)} for {len(rows)} rows", "add or drop", where)
    keys = tuple(
        Key(letter, (start + column) * key_width, top + line * row_height, key_width, row_height)
        for line, (row, start) in enumerate(zip(rows, starts, strict=True))
        for column, letter in enumerate(row)
    )
    return checked(Layout(name, language, "".join(sorted({key.label for key in keys})), keys), where)


def load_layout(name: str | Path) -> Layout:
    """A shipped layout, by its name (see ``SHIPPED``), or that of a JSON file, by its path.

    Raises:
        ConfigurationError: no such layout or file, or its content breaks a rule, which the message names.
    """
    if str(name) in SHIPPED:
        path = FILES / f"{name}.json"
    elif (path := Path(name).expanduser()).suffix != ".json":
        refuse(
            "layout",
            "must be the name of a shipped layout or the path of a .json file",
            repr(str(name)),
            nearest_name(str(name), SHIPPED),
            "the keyboard",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The file of a layout must hold JSON in UTF-8; got {path}, which cannot be read ({error}): fix the path "
            "or the file."
        ) from error
    return layout_from_json(content, f"the layout in {path}")


def layout_from_json(content: object, where: str) -> Layout:
    """A layout from its JSON form.

    Args:
        where: what messages call it.

    Raises:
        ConfigurationError: a key of it is unknown, missing or has a wrong value, or a rule of layouts is broken.
    """
    if not isinstance(content, dict):
        refuse("layout", "must be an object with name, language, alphabet and keys", repr(content), "write one", where)
    keys = check_type("keys", content.get("keys", []), list[tuple[str, float, float, float, float]], where)
    layout = from_json(Layout, {**content, "keys": []} if "keys" in content else content, where)
    return checked(Layout(layout.name, layout.language, layout.alphabet, tuple(Key(*key) for key in keys)), where)


def layout_to_json(layout: Layout) -> dict[str, object]:
    """The JSON form of a layout."""
    keys = [
        [key.label, *(int(number) if float(number).is_integer() else number for number in astuple(key)[1:])]
        for key in layout.keys
    ]
    return {"name": layout.name, "language": layout.language, "alphabet": layout.alphabet, "keys": keys}


def save_layout(layout: Layout, path: Path) -> None:
    """Write a layout as a JSON file, a key a line."""
    content = layout_to_json(layout)
    keys = ",\n".join(f"    {json.dumps(key, ensure_ascii=False)}" for key in content.pop("keys"))
    head = "".join(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)},\n" for key, value in content.items())
    text = f'{{\n{head}  "keys": [\n{keys}\n  ]\n}}\n'
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def checked(layout: Layout, where: str) -> Layout:
    """The layout, if it breaks no rule.

    Raises:
        ConfigurationError: see ``seq2seq.swipe.keyboards.rules``.
    """
    labels = [key.label for key in layout.keys]
    check_labels(labels, where)
    check_alphabet(layout.alphabet, labels, where)
    check_boxes(labels, np.array([astuple(key)[1:] for key in layout.keys], dtype=np.float64), where)
    return layout
