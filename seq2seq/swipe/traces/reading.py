"""Rows as traces: from jsonl files (or any format of ``seq2seq.tasks.files``), or from any iterable of dictionaries.

    {"word": "hello", "curve": {"x": [...], "y": [...], "t": [...]}, "layout": "qwerty"}
    {"word": "hello", "x": [...], "y": [...], "t": [...], "keyboard_width": 411}          flat

x and y are pixels of the layout, t is milliseconds. With ``keyboard_width`` (or ``keyboard_height``) x (or y) is
rescaled from a keyboard of that size to the layout's: phones differ in width more than in the height of their rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adapters.validation import ConfigurationError, refuse
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.keyboards.look_alikes import described, look_alike
from seq2seq.swipe.traces.trace import Trace
from seq2seq.tasks.files import read_rows

CURVE = ("x", "y", "t")
SHORTEST = 5
"""Milliseconds: a shorter trace has its time in seconds."""

Row = Mapping[str, Any]


def read_traces(
    source: str | Path | Iterable[Row],
    layouts: Layouts | None = None,
    layout: str | None = None,
    refused: list[str] | None = None,
) -> Iterator[tuple[int, Trace]]:
    """Yield the traces of a source, each with the index of its row, from 0.

    Args:
        source: a file, or rows.
        layouts: where layouts are looked up; the shipped ones and files are loaded into it.
        layout: the name or path of the layout of rows that name none.
        refused: if given, it gets the message of each row that breaks a rule, and that row is left out.

    Raises:
        ConfigurationError: a row breaks a rule; the message names the source, the row and the rule.
    """
    layouts = Layouts() if layouts is None else layouts
    given = isinstance(source, str | Path)
    try:
        for index, row in enumerate(read_rows(source) if given else source):
            where = f"row {index}{f' of {source}' if given else ''}"
            try:
                trace = trace_from_row(row, layouts, layout, where)
            except ConfigurationError as error:
                if refused is None:
                    raise
                refused.append(str(error))
            else:
                yield index, trace
    except ConfigurationError:
        raise
    except ValueError as error:
        if not given:
            raise
        raise ConfigurationError(str(error)) from error


def trace_from_row(row: Row, layouts: Layouts, layout: str | None = None, where: str = "the row") -> Trace:
    """The trace of a row; its time begins at 0.

    Raises:
        ConfigurationError: the row breaks a rule.
    """
    if not isinstance(row, Mapping):
        refuse("row", "must be an object", repr(row), "write a word, a curve and a layout", where)
    name = _text(row, "layout", layout, where)
    try:
        found = layouts[name]
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{where[0].upper()}{where[1:]} must have a layout that can be loaded. {error}"
        ) from error
    word = _text(row, "word", "", where)
    check_word(word, found, where)
    x, y, t = curve_of(row, where)
    if row.get("keyboard_width") is not None:
        x = x * (found.size[0] / _size(row, "keyboard_width", where))
    if row.get("keyboard_height") is not None:
        y = y * (found.size[1] / _size(row, "keyboard_height", where))
    t = np.rint(t - t[0])
    return Trace(word, x.astype(np.float32), y.astype(np.float32), t.astype(np.int32), found.name)


def check_word(word: str, layout: Layout, where: str) -> None:
    """Raise ConfigurationError unless each letter of a word has a key; the message says which letter looks like it."""
    for letter in word:
        if letter not in layout.alphabet:
            known = look_alike(letter, layout.alphabet)
            lower = letter.lower() if letter.lower() in layout.alphabet else None
            fix = f"write {described(known or lower)}" if known or lower else "drop the letter, or take another layout"
            rule = f"must be typed with letters of the layout {layout.name!r}"
            refuse("word", rule, f"{word!r} with {described(letter)}", fix, where)


def curve_of(row: Row, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and t of a row, flat or not, each (points,) float64, as they are given.

    Raises:
        ConfigurationError: they are not finite numbers, of unequal lengths, fewer than two, or time goes back.
    """
    curve = row.get("curve", row)
    if not isinstance(curve, Mapping):
        refuse("curve", "must be an object with x, y and t", repr(curve), "write three lists of numbers", where)
    found = [_numbers(curve, key, where) for key in CURVE]
    lengths = [len(values) for values in found]
    if len({*lengths}) > 1:
        given = ", ".join(f"{count} of {key}" for key, count in zip(CURVE, lengths, strict=True))
        refuse("curve", "must have x, y and t of equal lengths", given, "each point has the three", where)
    if lengths[0] < 2:
        refuse("curve", "must have two points or more", str(lengths[0]), "drop the row", where)
    t = found[2]
    if (steps := np.diff(t)).min() < 0:
        at = int(np.argmax(steps < 0))
        given = f"{t[at]:g} before {t[at + 1]:g} at point {at + 1}"
        refuse("t", "must not decrease", given, "sort the points by time, or drop the row", where)
    if not SHORTEST <= t[-1] - t[0] < 2**31:
        rule = f"must be in milliseconds, at least {SHORTEST} of them, in 31 bits"
        refuse("t", rule, f"{t[-1] - t[0]:g} from the first to the last point", "convert it or drop the row", where)
    return found[0], found[1], t


def _numbers(curve: Mapping[str, Any], key: str, where: str) -> np.ndarray:
    if key not in curve:
        refuse(key, "is required", f"the keys {sorted(map(str, curve))}", "add a list of numbers", where)
    try:
        values = np.asarray(curve[key])
    except ValueError:  # lists of unequal lengths in the list
        values = np.empty((0, 0))
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iuf"):
        text = repr(curve[key])
        refuse(key, "must be a list of numbers", text if len(text) < 80 else f"{text[:80]}...", "correct it", where)
    values = values.astype(np.float64)
    bad = ~(np.abs(values) < np.finfo(np.float32).max)
    if bad.any():
        at = int(np.argmax(bad))
        refuse(key, "must have finite numbers", f"{values[at]} at point {at}", "drop the point or the row", where)
    return values


def _text(row: Row, key: str, default: str | None, where: str) -> str:
    value = row.get(key)
    value = default if value is None else value
    if value is None:
        refuse(key, "is required", f"the keys {sorted(map(str, row))}", "add it, or name one for all rows", where)
    if not isinstance(value, str):
        refuse(key, "must be a string", repr(value), "put it in quotation marks", where)
    return value


def _size(row: Row, key: str, where: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        refuse(key, "must be a positive number of pixels", repr(value), "write the width that x refers to", where)
    return float(value)
