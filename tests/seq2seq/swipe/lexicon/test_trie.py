"""The packed trie against sets and dictionaries of its words."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import ConfigurationError
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon

ALPHABET = "abcdë"
WORDS = st.sets(st.text(ALPHABET, min_size=1, max_size=6), min_size=1, max_size=40)


def lexicon_of(words, displayed=None):
    words = sorted(words)
    log_frequencies = -np.arange(1, len(words) + 1, dtype=np.float32)
    return Lexicon(words, log_frequencies, [(displayed or {}).get(word, word) for word in words])


def prefixes_of(words):
    return {word[:k] for word in words for k in range(len(word) + 1)}


@settings(max_examples=40, deadline=None)
@given(words=WORDS, others=st.lists(st.text(ALPHABET + "x", max_size=7), max_size=20))
def test_it_has_the_words_and_prefixes_of_a_set(words, others):
    lexicon = lexicon_of(words)
    trie = PackedTrie.build(lexicon, ALPHABET)
    prefixes = sorted(prefixes_of(words))
    assert len(trie) == len(words)
    assert trie.nbytes == 8 * (len(prefixes) + 1) + 4 * len(words) + 8  # and the end of the displayed forms
    assert [trie.word(index) for index in range(len(trie))] == lexicon.words
    for other in [*others, *prefixes]:
        assert (other in trie) == (other in words)
        assert (trie.node(other) >= 0) == (other in prefixes)
    nodes = np.array([trie.node(prefix) for prefix in prefixes])
    assert sorted(nodes.tolist()) == [*range(len(prefixes))]
    expected = [[prefix + letter in prefixes for letter in ALPHABET] for prefix in prefixes]
    assert trie.allowed(nodes).tolist() == expected
    for k, letter in enumerate(ALPHABET):
        steps = trie.step(nodes, np.full(len(nodes), k))
        assert steps.tolist() == [trie.node(prefix + letter) for prefix in prefixes]
    index = {word: k for k, word in enumerate(lexicon.words)}
    assert trie.words_at(nodes).tolist() == [index.get(prefix, -1) for prefix in prefixes]
    assert trie.depths(nodes).tolist() == [*map(len, prefixes)]
    assert trie.parents(nodes).tolist() == [trie.node(prefix[:-1]) if prefix else -1 for prefix in prefixes]


@settings(max_examples=25, deadline=None)
@given(words=WORDS, data=st.data())
def test_related_nodes_are_those_above_and_below(words, data):
    trie = PackedTrie.build(lexicon_of(words), ALPHABET)
    prefixes = sorted(prefixes_of(words))
    some = data.draw(st.lists(st.sampled_from(prefixes), max_size=4))
    expected = {p for p in prefixes if any(p.startswith(s) or s.startswith(p) for s in some)}
    found = trie.related(np.array([trie.node(prefix) for prefix in some], np.int64))
    assert found.tolist() == sorted(trie.node(prefix) for prefix in expected)


def test_the_best_frequency_is_that_of_the_most_frequent_word_below():
    lexicon = Lexicon(["a", "ab", "abc", "b"], np.array([-3, -1, -2, -5], np.float32), ["a", "ab", "abc", "b"])
    trie = PackedTrie.build(lexicon, "abc")
    found = {prefix: trie.best_frequencies[trie.node(prefix)] for prefix in ("", "a", "ab", "abc", "b")}
    assert found == {"": -1, "a": -1, "ab": -1, "abc": -2, "b": -5}


def test_no_node_has_no_child_and_no_word():
    trie = PackedTrie.build(lexicon_of(["ab", "b"]), ALPHABET)
    nodes = np.array([-1, trie.root])
    assert trie.step(nodes, np.array([0, 0])).tolist() == [-1, trie.node("a")]
    assert trie.allowed(nodes).sum(1).tolist() == [0, 2]
    assert trie.words_at(np.array([-1, trie.node("b"), trie.node("a")])).tolist() == [-1, 1, -1]
    assert trie.step(nodes, np.array([0, 0])).dtype == np.int64


@pytest.mark.parametrize("displayed", [{}, {"ab": "a'b"}, {"ab": "A-b", "da": "ꙮ…", "b": "B"}])
def test_a_saved_trie_is_mapped_and_equal(tmp_path, displayed):
    lexicon = lexicon_of({"a", "ab", "b", "da", "dë"}, displayed)
    built = PackedTrie.build(lexicon, ALPHABET)
    built.save(tmp_path / "new" / "folder")
    opened = PackedTrie.open(tmp_path / "new" / "folder")
    assert isinstance(opened.log_frequencies, np.memmap)
    for trie in (built, opened):
        assert [trie.displayed(index) for index in range(len(trie))] == lexicon.displayed
        assert [trie.word(index) for index in range(len(trie))] == lexicon.words
        assert trie.log_frequencies.tolist() == lexicon.log_frequencies.tolist()
        assert trie.alphabet == ALPHABET
    assert opened.nbytes == built.nbytes
    header = json.loads((tmp_path / "new" / "folder" / "trie.json").read_text())
    assert (header["words"], header["displayed"], header["alphabet"]) == (5, len(displayed), ALPHABET)


def damaged(folder, how):
    if how == "missing":
        (folder / "nodes.npy").unlink()
    elif how == "header":
        (folder / "trie.json").write_text("{")
    elif how == "format":
        header = json.loads((folder / "trie.json").read_text())
        (folder / "trie.json").write_text(json.dumps({**header, "format": 99}))
    elif how == "byte":
        content = bytearray((folder / "nodes.npy").read_bytes())
        content[-1] ^= 1
        (folder / "nodes.npy").write_bytes(content)
    elif how == "short":
        content = (folder / "log_frequencies.npy").read_bytes()
        (folder / "log_frequencies.npy").write_bytes(content[:-4])


@pytest.mark.parametrize("how", ["missing", "header", "format", "byte", "short"])
def test_a_damaged_folder_is_refused(tmp_path, how):
    PackedTrie.build(lexicon_of({"ab", "b"}), ALPHABET).save(tmp_path)
    damaged(tmp_path, how)
    with pytest.raises(ConfigurationError, match=r"A lexicon's folder .*tmp|A lexicon's folder .*pytest"):
        PackedTrie.open(tmp_path)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_number_without_a_word_is_an_error(index):
    trie = PackedTrie.build(lexicon_of({"ab", "b"}), ALPHABET)
    for read in (trie.word, trie.displayed):
        with pytest.raises(IndexError):
            read(index)


@pytest.mark.parametrize(
    ("words", "alphabet", "message"),
    [
        (["ab"], "ba", "An alphabet is a sorted string"),
        (["ab"], "aab", "An alphabet is a sorted string"),
        (["ab"], "", "An alphabet is a sorted string"),
        (["ab", "ax", "b"], "ab", "letters of its alphabet 'ab'; got 'ax'"),
        (["aa", "zb"], "ab", "got 'zb'"),
        (["!a", "aa"], "ab", "got '!a'"),
    ],
)
def test_what_cannot_be_packed_is_refused(words, alphabet, message):
    with pytest.raises(ConfigurationError, match=message):
        PackedTrie.build(lexicon_of(words), alphabet)


def test_an_alphabet_of_the_largest_size():
    alphabet = "".join(chr(0x400 + k) for k in range(128))
    words = sorted({alphabet[k] + alphabet[-1] for k in range(0, 128, 7)} | {alphabet[0], alphabet[127]})
    trie = PackedTrie.build(lexicon_of(words), alphabet)
    assert [trie.word(k) for k in range(len(trie))] == words
    with pytest.raises(ConfigurationError, match="1 to 128"):
        PackedTrie.build(lexicon_of(words), alphabet + chr(0x400 + 128))
