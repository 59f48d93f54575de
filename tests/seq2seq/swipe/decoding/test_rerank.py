"""Edit distances over a trie against the textbook's table for two strings, and the ranking that they give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import ConfigurationError
from seq2seq.swipe.decoding.candidates import Candidate
from seq2seq.swipe.decoding.rerank import rerank, words_within
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon

ALPHABET = "abcd"


def levenshtein(first: str, second: str) -> int:
    row = [*range(len(second) + 1)]
    for i, a in enumerate(first, 1):
        old, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(old[j] + 1, row[-1] + 1, old[j - 1] + (a != b)))
    return row[-1]


def trie_of(shares: dict[str, float]) -> PackedTrie:
    words = sorted(shares)
    log_frequencies = np.log([shares[word] for word in words]).astype(np.float32)
    return PackedTrie.build(Lexicon(words, log_frequencies, words), ALPHABET)


@settings(max_examples=60, deadline=None)
@given(
    words=st.sets(st.text(ALPHABET, min_size=1, max_size=6), min_size=1, max_size=25),
    string=st.text(ALPHABET + "x", max_size=7),
    edits=st.integers(0, 4),
)
def test_the_words_within_some_edits(words, string, edits):
    trie = trie_of(dict.fromkeys(words, 0.1))
    found, distances = words_within(string, trie, edits)
    expected = {word: levenshtein(string, word) for word in sorted(words)}
    assert [trie.word(index) for index in found] == [word for word, d in expected.items() if d <= edits]
    assert distances.tolist() == [d for d in expected.values() if d <= edits]


@pytest.mark.parametrize(
    ("strings", "options", "expected"),
    [
        ([("abc", -1.0)], {}, [("abc", -1.0)]),  # a word stays alone
        ([("abx", -1.0)], {}, [("ab", -5.0), ("abc", -5.0), ("abcd", -9.0), ("b", -9.0)]),
        ([("abx", -1.0)], {"edits": 1}, [("ab", -5.0), ("abc", -5.0)]),
        ([("abx", -1.0)], {"edits": 1, "candidates": 1}, [("ab", -5.0)]),
        ([("abx", -1.0)], {"edits": 1, "edit_cost": 0.5}, [("ab", -1.5), ("abc", -1.5)]),
        ([("abx", -1.0)], {"edits": 1, "language_weight": 1.0}, [("abc", -5 + np.log(0.5)), ("ab", -5 + np.log(0.1))]),
        ([("abx", -1.0), ("abc", -2.0)], {"edits": 1}, [("abc", -2.0), ("ab", -5.0)]),  # the better of two ways
        ([("dddddd", -1.0)], {}, []),
        ([("", -1.0)], {"edits": 1}, [("b", -5.0)]),
        ([], {}, []),
    ],
)
def test_strings_become_words(strings, options, expected):
    trie = trie_of({"ab": 0.1, "abc": 0.5, "abcd": 0.3, "b": 0.1})
    (found,) = rerank([[Candidate(*string) for string in strings]], trie, **options)
    assert [word for word, _ in found] == [word for word, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"edits": -1}, "Key 'edits' of re-ranking"),
        ({"edit_cost": float("nan")}, "Key 'edit_cost' of re-ranking"),
        ({"candidates": 0}, "Key 'candidates' of decoding"),
    ],
)
def test_options_are_checked(option, message):
    with pytest.raises(ConfigurationError, match=message):
        rerank([], trie_of({"ab": 1.0}), **option)
