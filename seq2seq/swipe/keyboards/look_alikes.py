"""Letters that look alike: "ë" is U+00EB in the Latin script and U+0451 in the Cyrillic one.

A wrong one is invisible to the eye, and no word that has it can be typed. The groups below are of lowercase letters of
the Latin, Greek and Cyrillic scripts, most of them from Unicode's table of confusable characters (UTS #39, not
complete); letters with diacritics follow by decomposition.
"""

import unicodedata
from collections.abc import Iterable

CONFUSABLE = (
    "aаα", "bь", "cсϲ", "eе", "hһ", "iіι", "jјϳ", "kкκ",
    "mм", "nη", "oоο", "pрρ", "sѕ", "tтτ", "uυ", "vѵν", "xхχ", "yуγ", "wѡω",
)  # fmt: skip
GROUPS = {letter: group for group in CONFUSABLE for letter in group}


def described(letter: str) -> str:
    """A letter with its code points and names: 'ë' (U+00EB LATIN SMALL LETTER E WITH DIAERESIS)."""
    points = (f"U+{ord(point):04X} {unicodedata.name(point, 'without a name')}" for point in letter)
    return f"{letter!r} ({', '.join(points)})"


def script_of(letter: str) -> str | None:
    """The script of a letter, the first word of its Unicode name ("CYRILLIC"); None for what is in all scripts."""
    if unicodedata.category(letter) not in ("Ll", "Lu", "Lt", "Lo"):
        return None
    return unicodedata.name(letter, "UNNAMED").partition(" ")[0]


def look_alike(letter: str, among: Iterable[str]) -> str | None:
    """The letter of ``among`` that looks like ``letter``, or is another way to write it; None if there is none."""
    shape = _shape(letter)
    return next((other for other in among if other != letter and _shape(other) == shape), None)


def _shape(text: str) -> str:
    """The text decomposed, with each letter replaced by the first one of those that look like it."""
    return "".join(GROUPS.get(point, point)[0] for point in unicodedata.normalize("NFKD", text))
