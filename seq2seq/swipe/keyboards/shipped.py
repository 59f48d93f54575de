"""The layouts that come with the library, from their rows of letters.

    python -m seq2seq.swipe.keyboards.shipped

writes ``files/*.json``. Keys are as wide as on a phone of about 360 px and rows 62 px high, 3 px below the upper edge,
as in How-We-Swipe, where rows of qwerty are centred at 34, 96 and about 160 px.
"""

from typing import NamedTuple

from seq2seq.swipe.keyboards.layout import FILES, Layout, layout_from_rows, save_layout


class Rows(NamedTuple):
    """Rows of letters, and how far each begins from the left, in key widths; None centres them."""

    language: str
    rows: tuple[str, ...]
    shifts: tuple[float, ...] | None = None
    key_width: float = 36.0


ROWS = {
    "qwerty": Rows("en", ("qwertyuiop", "asdfghjkl", "zxcvbnm")),
    # Phones have ü, ö and ä at the ends of rows, and most have no key for ß, which is put at the end of the last one.
    "qwertz": Rows("de", ("qwertzuiopü", "asdfghjklöä", "yxcvbnmß"), key_width=32.0),
    "azerty": Rows("fr", ("azertyuiop", "qsdfghjklm", "wxcvbn")),
    # Where the letters are on a typewriter's Dvorak keyboard, of which the signs ',. and ; are left out.
    "dvorak": Rows("en", ("pyfgcrl", "aoeuidhtns", "qjkxbmwvz"), (3, 0, 1)),
    "colemak": Rows("en", ("qwfpgjluy", "arstdhneio", "zxcvbkm"), (0, 0, 1.5)),
    # йцукен, with ъ and ё at the ends of rows, so that each of the 33 letters has a key.
    "jcuken": Rows("ru", ("йцукенгшщзхъ", "фывапролджэё", "ячсмитьбю"), key_width=30.0),
}


def made(name: str) -> Layout:
    """The shipped layout of that name."""
    language, rows, shifts, key_width = ROWS[name]
    return layout_from_rows(name, language, rows, shifts, key_width, row_height=62.0, top=3.0)


if __name__ == "__main__":
    for name in ROWS:
        save_layout(made(name), FILES / f"{name}.json")
