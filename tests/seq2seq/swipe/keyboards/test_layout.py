"""Layouts: the shipped ones, your own files, and what is refused."""

import json
import unicodedata

import numpy as np
import pytest

from adapters.validation import ConfigurationError
from seq2seq.swipe.keyboards.layout import SHIPPED, Key, layout_from_json, layout_from_rows, load_layout, save_layout
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.keyboards.look_alikes import look_alike
from seq2seq.swipe.keyboards.shipped import ROWS, made

RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"


def content(**changes):
    """A layout of a, b and c in a row, in JSON, with changes."""
    keys = [["a", 0, 0, 36, 62], ["b", 36, 0, 36, 62], ["c", 72, 0, 36, 62]]
    return {"name": "tiny", "language": "en", "alphabet": "abc", "keys": keys} | changes


def keys_of(letters):
    return [[letter, 36 * place, 0, 36, 62] for place, letter in enumerate(letters)]


def test_each_shipped_layout_is_that_of_its_rows():
    assert set(SHIPPED) == set(ROWS)
    for name in SHIPPED:
        assert load_layout(name) == made(name)


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("qwerty", "abcdefghijklmnopqrstuvwxyz"),
        ("qwertz", "abcdefghijklmnopqrstuvwxyzßäöü"),
        ("azerty", "abcdefghijklmnopqrstuvwxyz"),
        ("dvorak", "abcdefghijklmnopqrstuvwxyz"),
        ("colemak", "abcdefghijklmnopqrstuvwxyz"),
        ("jcuken", "".join(sorted(RUSSIAN))),
    ],
)
def test_a_shipped_layout_types_its_language(name, letters):
    layout = load_layout(name)
    assert layout.alphabet == letters
    assert layout.name == name
    assert layout.boxes.shape == (len(letters), 4)
    assert layout.boxes.dtype == np.float32
    assert (layout.boxes[:, 2] == 1).all()


def test_qwerty_is_where_the_real_swipes_have_it():
    layout = load_layout("qwerty")
    assert layout.size[0] == 10 * layout.key_width == 360
    by_label = {key.label: key for key in layout.keys}
    assert [by_label[letter].y + by_label[letter].height / 2 for letter in "qaz"] == [34, 96, 158]
    np.testing.assert_allclose(layout.boxes[layout.numbers["m"]], [8, 158 / 36, 1, 62 / 36], rtol=1e-6)


def test_a_layout_survives_its_file(tmp_path):
    layout = layout_from_rows("greek", "el", ("ςερτυ", "ασδ"), (0.0, 0.25), key_width=33.3)
    save_layout(layout, tmp_path / "mine.json")
    assert load_layout(tmp_path / "mine.json") == layout
    assert load_layout(str(tmp_path / "mine.json")) == layout


def test_keys_without_a_letter_are_kept():
    layout = layout_from_json(content(keys=[*keys_of("abc"), ["space", 0, 62, 108, 62], [",", 108, 62, 10, 62]]), "x")
    assert layout.keys[3] == Key("space", 0, 62, 108, 62)
    assert layout.key_width == 36
    assert layout.size == (118, 124)


CYRILLIC = {"alphabet": "абё", "keys": keys_of("абё")}
REFUSED = {
    "overlap": (content(keys=[["a", 0, 0, 40, 62], *content()["keys"][1:]]), "'a' at .* and 'b' at .*overlap|overlap"),
    "key twice": (content(keys=[*keys_of("abc"), ["a", 200, 0, 36, 62]]), "a label once; got 'a' .U.0061"),
    "letter without key": (content(alphabet="abcd"), r"'d' \(U\+0064 LATIN SMALL LETTER D\) without one"),
    "key without letter": (content(alphabet="ab"), r"must type letters of the alphabet; got 'c' \(U\+0063"),
    "homoglyph in alphabet and keys": (
        content(alphabet="абë", keys=keys_of("абë")),
        r"one script, Cyrillic; got 'ë' \(U\+00EB .*'ё' \(U\+0451 .* looks like it",
    ),
    "homoglyph in the keys": (
        content(alphabet="абё", keys=keys_of("абë")),
        r"'ё' \(U\+0451 .*without one: .*'ë' \(U\+00EB .*looks like it",
    ),
    "Latin a": (content(alphabet="aбв", keys=keys_of("aбв")), r"Cyrillic; got 'a' \(U\+0061.*U\+0430"),
    "Cyrillic o": (content(alphabet="abо", keys=keys_of("abо")), r"Latin; got 'о' \(U\+043E.*'o' \(U\+006F"),
    "Greek omicron": (content(alphabet="abο", keys=keys_of("abο")), r"Latin; got 'ο' \(U\+03BF"),
    "micro sign": (content(alphabet="abµ", keys=keys_of("abµ")), r"Latin; got 'µ' \(U\+00B5"),
    "not NFC": (
        content(keys=[*keys_of("abc"), [unicodedata.normalize("NFD", "é"), 200, 0, 36, 62]]),
        r"NFC.*U\+0065 .*U\+0301 .*write 'é' \(U\+00E9",
    ),
    "alphabet not NFC": (content(alphabet="abce\u0301"), r"'alphabet' .*NFC"),
    "angstrom sign": (content(alphabet="abc\u212b"), r"NFC.*U\+212B.*U\+00C5"),
    "uppercase": (content(alphabet="ABC", keys=keys_of("ABC")), r"lowercase; got 'A' \(U\+0041.*'a' \(U\+0061"),
    "unsorted": (content(alphabet="acb"), "sorted by code point, a letter once; got 'acb': write 'abc'"),
    "letter twice": (content(alphabet="aabc"), "a letter once"),
    "no letters": (content(alphabet=""), "at least one letter"),
    "no keys": (content(keys=[]), "at least one key"),
    "no key of keys": ({key: value for key, value in content().items() if key != "keys"}, "'keys' .* is required"),
    "width 0": (content(keys=[*keys_of("ab"), ["c", 72, 0, 0, 62]]), "finite size.*'c'"),
    "left of the keyboard": (content(keys=[["a", -1, 0, 36, 62], *keys_of("abc")[1:]]), "within the keyboard"),
    "infinite": (content(keys=[*keys_of("ab"), ["c", 1e999, 0, 36, 62]]), "JSON value"),
    "key of three": (content(keys=[["a", 0, 0]]), "'keys' .*must have a value of its type"),
    "unknown key": (content(colour="red"), "got 'colour'"),
    "name of a wrong type": (content(name=3), "'name'"),
    "a list": ([1, 2], "must be an object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_layout_is_refused(case):
    given, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message) as refused:
        layout_from_json(given, "the layout in mine.json")
    assert "mine.json" in str(refused.value)


def test_boxes_that_touch_do_not_overlap():
    width = 100 / 3
    layout = layout_from_rows("three", "en", ("abc", "def"), key_width=round(width, 6))
    assert len(layout.keys) == 6


@pytest.mark.parametrize(
    ("rows", "shifts", "message"),
    [(("ab", "ca"), None, "a label once"), (("ab", "cd"), (0,), "a number for each row"), ((), None, "one key")],
)
def test_rows_are_refused(rows, shifts, message):
    with pytest.raises(ConfigurationError, match=message):
        layout_from_rows("mine", "en", rows, shifts)


def test_a_name_is_looked_for(tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'qwerty'"):
        load_layout("qwertyy")
    with pytest.raises(ConfigurationError, match=r"mine\.json, which cannot be read"):
        load_layout(tmp_path / "mine.json")
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"mine\.json, which cannot be read"):
        load_layout(tmp_path / "mine.json")


def test_layouts_of_one_name_are_one(tmp_path):
    layouts = Layouts()
    (tmp_path / "a.json").write_text(json.dumps(content()))
    (tmp_path / "b.json").write_text(json.dumps(content(language="fr")))
    assert layouts[str(tmp_path / "a.json")] is layouts["tiny"]
    with pytest.raises(ConfigurationError, match="a name of its own"):
        layouts[str(tmp_path / "b.json")]
    assert layouts["qwerty"] is layouts["qwerty"]


@pytest.mark.parametrize(
    ("letter", "among", "other"),
    [
        ("ë", "её", "ё"),
        ("ё", "abë", "ë"),
        ("o", "або", "о"),
        ("e\u0301", "aé", "é"),
        ("q", "абв", None),
        ("a", "abc", None),
    ],
)
def test_letters_look_alike(letter, among, other):
    assert look_alike(letter, among) == other
