"""Lexicons of files, of counts and of wordfreq: typed letters, displayed forms, what is left out or refused."""

import sys

import numpy as np
import pytest

from adapters import ConfigurationError
from seq2seq.swipe.keyboards.layout import layout_from_rows
from seq2seq.swipe.lexicon.words import Lexicon, typed

QWERTY = layout_from_rows("qwerty", "en", ["qwertyuiop", "asdfghjkl", "zxcvbnm"])
RUSSIAN = layout_from_rows("йцукен", "ru", ["йцукенгшщзхъ", "фывапролджэ", "ячсмитьбюё"])


@pytest.mark.parametrize(
    ("word", "layout", "letters"),
    [
        ("hello", QWERTY, "hello"),
        ("Hello", QWERTY, "hello"),
        ("don't", QWERTY, "dont"),
        ("don’t", QWERTY, "dont"),
        ("X-ray", QWERTY, "xray"),
        ("Café", QWERTY, "cafe"),
        ("cafe\u0301", QWERTY, "cafe"),
        ("İzmir", QWERTY, "izmir"),
        ("straße", QWERTY, ""),
        ("u.s", QWERTY, ""),
        ("4th", QWERTY, ""),
        ("--", QWERTY, ""),
        ("", QWERTY, ""),
        ("сhat", QWERTY, ""),  # begins with U+0441
        ("Чей", RUSSIAN, "чей"),
        ("чеи\u0306", RUSSIAN, "чей"),
        ("ёж", RUSSIAN, "ёж"),
        ("за́мок", RUSSIAN, "замок"),
    ],
)
def test_how_a_word_is_typed(word, layout, letters):
    assert typed(word, layout.alphabet) == letters


def test_counts_of_words_that_are_typed_alike_add_up_and_the_most_frequent_is_displayed(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("were\t50\nwe're\t30\nWere\t1\n\ndont\t1\ndon't\t9\n4th\t2\nc++\t5\nbe\t9\r\n", encoding="utf-8")
    lexicon = Lexicon.from_file(path, QWERTY)
    assert lexicon.words == ["be", "dont", "were"]
    assert lexicon.displayed == ["be", "don't", "were"]
    np.testing.assert_allclose(lexicon.log_frequencies, np.log([0.09, 0.10, 0.81]), rtol=1e-6)
    assert lexicon.log_frequencies.dtype == np.float32
    assert lexicon.untypable == ("c++", "4th")
    assert len(lexicon) == 3


@pytest.mark.parametrize("separator", list("\r\v\f\x1c\x85\u2028"), ids=ascii)
def test_only_a_line_feed_ends_a_word(tmp_path, separator):
    path = tmp_path / "words.txt"
    path.write_bytes(f"he{separator}llo\t3\nthere\t4\r\n".encode())
    lexicon = Lexicon.from_file(path, QWERTY)
    assert (lexicon.words, lexicon.untypable) == (["there"], (f"he{separator}llo",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello\t3\nthere 4\n", r"got 'there 4' in line 2"),
        (b"hello\n", "in line 1"),
        (b"hello\tmany\n", "in line 1"),
        (b"hello\t0\n", "in line 1"),
        (b"hello\t-1\n", "in line 1"),
        (b"hello\tnan\n", "in line 1"),
        (b"hello\tinf\n", "in line 1"),
        (b"hello\t1\t2\n", "in line 1"),
        (b"\t1\n", "in line 1"),
        (b"\xff\t1\n", "in UTF-8"),
        (b"", "typed on layout 'qwerty'; got none"),
        ("привет\t1\n".encode(), "got none, but 1 others: привет"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        Lexicon.from_file(path, QWERTY)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="A lexicon is a readable text file"):
        Lexicon.from_file(tmp_path / "words.txt", QWERTY)


@pytest.mark.parametrize(
    ("words", "log_frequencies", "displayed"),
    [
        ([], [], []),
        ([""], [0.0], [""]),
        (["b", "a"], [0.0, 0.0], ["b", "a"]),
        (["a", "a"], [0.0, 0.0], ["a", "a"]),
        (["a", "b"], [0.0], ["a", "b"]),
        (["a", "b"], [0.0, 0.0], ["a"]),
        (["a"], [-np.inf], ["a"]),
    ],
)
def test_lists_that_are_no_lexicon_are_refused(words, log_frequencies, displayed):
    with pytest.raises(ConfigurationError, match=r"lexicon (has|are)"):
        Lexicon(words, np.array(log_frequencies, np.float32), displayed)


def test_the_most_frequent_words_of_a_language():
    pytest.importorskip("wordfreq")
    lexicon = Lexicon.from_wordfreq("en", 300, QWERTY)
    assert len(lexicon) == 300
    assert lexicon.words == sorted({*lexicon.words})
    assert lexicon.words[np.argmax(lexicon.log_frequencies)] == "the"
    assert lexicon.displayed[lexicon.words.index("dont")] == "don't"
    assert np.exp(lexicon.log_frequencies.astype(float)).sum() == pytest.approx(1)
    assert len(Lexicon.from_wordfreq("ru", 50, RUSSIAN)) == 50


def test_wordfreq_is_asked_for_a_language_it_has():
    pytest.importorskip("wordfreq")
    with pytest.raises(ConfigurationError, match="got 'tlh': known are ar, "):
        Lexicon.from_wordfreq("tlh", 10, QWERTY)
    with pytest.raises(ConfigurationError, match="at least one word"):
        Lexicon.from_wordfreq("en", 0, QWERTY)


def test_without_wordfreq_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tensorized-adapters\[swipe\]'"):
        Lexicon.from_wordfreq("en", 10, QWERTY)
