"""The rules of a layout: boxes that do not overlap, a key for each letter, and letters that are what they look like.

Without them a wrong layout trains, and only a low score says that something is wrong.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from adapters.validation import refuse
from seq2seq.swipe.keyboards.look_alikes import described, look_alike, script_of

TOUCHING = 1e-4
"""Boxes may overlap by so many pixels, as positions are rounded."""


def check_labels(labels: Sequence[str], where: str) -> None:
    """Raise ConfigurationError unless labels are distinct and normalized (NFC)."""
    if not labels:
        refuse("keys", "must have at least one key", "none", "add keys", where)
    for label in labels:
        _check_normalized("keys", label, where)
    repeated = next((label for label, count in Counter(labels).items() if count > 1), None)
    if repeated is not None:
        refuse("keys", "must have a label once", f"{described(repeated)} more than once", "drop or rename one", where)


def check_alphabet(alphabet: str, labels: Sequence[str], where: str) -> None:
    """Raise ConfigurationError unless each letter is in NFC, lowercase, in the script of the others and has a key."""
    key = "alphabet"
    if not alphabet:
        refuse(key, "must have at least one letter", "none", "list the letters that can be typed", where)
    _check_normalized(key, alphabet, where)
    scripts = {letter: script for letter in alphabet if (script := script_of(letter))}
    main = Counter(scripts.values()).most_common(1)[0][0] if scripts else None
    for letter in alphabet:
        if letter.lower() != letter:
            refuse(key, "must be lowercase", described(letter), f"write {described(letter.lower())}", where)
        if scripts.get(letter, main) != main:
            fix = "write a letter of that script" + _meant(letter, _letters(main))
            refuse(key, f"must have letters of one script, {main.title()}", described(letter), fix, where)
        if letter not in labels:
            fix = "add a key or drop the letter" + _meant(letter, labels)
            refuse(key, "must have letters with keys", f"{described(letter)} without one", fix, where)
    for label in labels:
        if len(label) == 1 and script_of(label) and label not in alphabet:
            fix = "add it to the alphabet or drop the key" + _meant(label, alphabet)
            refuse("keys", "must type letters of the alphabet", described(label), fix, where)
    if list(alphabet) != sorted(set(alphabet)):
        ordered = "".join(sorted(set(alphabet)))
        refuse(key, "must be sorted by code point, a letter once", repr(alphabet), f"write {ordered!r}", where)


def check_boxes(labels: Sequence[str], boxes: np.ndarray, where: str) -> None:
    """Raise ConfigurationError unless boxes (keys, 4), x, y, width and height in pixels, are finite and disjoint."""
    for label, box in zip(labels, boxes, strict=True):
        if not np.isfinite(box).all() or (box[:2] < 0).any() or (box[2:] <= 0).any():
            rule = "must have boxes of finite size within the keyboard, which begins at 0, 0"
            refuse("keys", rule, f"{label!r} at {box.tolist()}", "correct x, y, width and height", where)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)  # (keys, keys, 2)
    first, second = np.nonzero(np.triu((shared > TOUCHING).all(-1), 1))
    if len(first):
        one, other = (f"{labels[at[0]]!r} at {boxes[at[0]].tolist()}" for at in (first, second))
        refuse("keys", "must have boxes that do not overlap", f"{one} and {other}", "move or shrink one", where)


def _check_normalized(key: str, text: str, where: str) -> None:
    normal = unicodedata.normalize("NFC", text)
    if normal != text:
        at = next(i for i, (one, other) in enumerate(zip(text, normal + "\0", strict=False)) if one != other)
        given = described(text[at : at + 2])
        refuse(key, "must be normalized Unicode (NFC)", given, f"write {described(normal[at])}", where)


def _letters(script: str) -> list[str]:
    """The lowercase letters of a script up to U+FFFF."""
    points = map(chr, range(0x10000))
    return [point for point in points if unicodedata.category(point) == "Ll" and script_of(point) == script]


def _meant(letter: str, among: Sequence[str]) -> str:
    other = look_alike(letter, among)
    return f"; {described(other)} looks like it" if other else ""
