"""Exact scores of lexicons against torch's loss, and what exact scoring adds to a narrow beam."""

import numpy as np
import pytest

from adapters import ConfigurationError
from seq2seq.swipe.decoding.ctc import beam_ctc
from seq2seq.swipe.decoding.exhaustive import beam_then_exhaustive_ctc, exhaustive_ctc
from seq2seq.swipe.decoding.forward import frames_of as checked_frames
from seq2seq.swipe.decoding.forward import word_scores
from seq2seq.swipe.lexicon.trie import PackedTrie
from tests.seq2seq.swipe.decoding.ctc_oracles import QWERTY, by_torch, frames_of, lexicon_of_pieces

ALPHABET = QWERTY.alphabet
LEXICON = lexicon_of_pieces(200)
TRIE = PackedTrie.build(LEXICON, ALPHABET)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_all_words_are_scored_as_torch_scores_them(weight):
    frames, lengths = frames_of(1, 3, 14, 26), np.array([14, 9, 4])
    found = exhaustive_ctc(frames, lengths, ALPHABET, TRIE, len(LEXICON), weight)
    for row, length in enumerate(lengths):
        scores = by_torch(frames[row, :length], LEXICON.words, ALPHABET) + weight * LEXICON.log_frequencies
        order = [k for k in np.argsort(-scores) if scores[k] > -np.inf]
        assert [word for word, _ in found[row]] == [LEXICON.words[k] for k in order]
        np.testing.assert_allclose([score for _, score in found[row]], scores[order], rtol=0, atol=1e-9)


def test_each_row_has_a_word_of_its_own():
    words = ["hello", "a", "", "loose", "aa"]
    frames, lengths = frames_of(2, 5, 8, 26), np.array([8, 3, 5, 6, 2])
    scores = word_scores(checked_frames(frames, lengths, ALPHABET), words, ALPHABET)
    expected = [by_torch(f[:n], [word], ALPHABET)[0] for f, n, word in zip(frames, lengths, words, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    assert scores[-1] == -np.inf  # the repetition needs a blank between


def test_words_under_the_beam_are_scored_exactly_and_found_from_prefixes():
    frames = frames_of(3, 6, 14, 26, spread=3.0)
    lengths = np.full(6, 14)
    options = {"beam": 4, "candidates": 300}
    exact = exhaustive_ctc(frames, lengths, ALPHABET, TRIE, 300)
    narrow = beam_ctc(frames, lengths, ALPHABET, trie=TRIE, **options)
    rescored = beam_then_exhaustive_ctc(frames, lengths, ALPHABET, TRIE, **options)
    for all_words, few, found in zip(exact, narrow, rescored, strict=True):
        scores = dict(all_words)
        assert {word for word, _ in few} <= {word for word, _ in found}
        assert [word for word, _ in found] == [word for word, _ in all_words if word in dict(found)]
        for word, score in found:
            assert score == pytest.approx(scores[word], abs=1e-9)
    assert sum(map(len, rescored)) > sum(map(len, narrow))
    assert any(
        dict(few)[word] < dict(found)[word] - 1e-6
        for few, found in zip(narrow, rescored, strict=True)
        for word in dict(few)
    )


def test_a_beam_of_the_whole_lexicon_leaves_nothing_to_find():
    frames, lengths = frames_of(4, 2, 10, 26), np.array([10, 6])
    exact = exhaustive_ctc(frames, lengths, ALPHABET, TRIE, 8, 0.3)
    found = beam_then_exhaustive_ctc(frames, lengths, ALPHABET, TRIE, 1000, 8, 0.3)
    assert [[word for word, _ in row] for row in found] == [[word for word, _ in row] for row in exact]


def test_options_and_numbers_are_checked():
    frames, lengths = frames_of(0, 1, 3, 26), np.array([3])
    with pytest.raises(ConfigurationError, match="Key 'candidates' of decoding"):
        exhaustive_ctc(frames, lengths, ALPHABET, TRIE, 0)
    with pytest.raises(ConfigurationError, match="Key 'beam' of decoding"):
        beam_then_exhaustive_ctc(frames, lengths, ALPHABET, TRIE, 0)
    frames[0, 1, 4] = np.nan
    with pytest.raises(ConfigurationError, match="got nan"):
        exhaustive_ctc(frames, lengths, ALPHABET, TRIE)
