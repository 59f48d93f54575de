"""CTC decoding against sums over all alignments, and against torch's loss for each word of a lexicon."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import ConfigurationError
from seq2seq.swipe.decoding.ctc import AllPrefixes, beam_ctc, greedy_ctc
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon
from tests.seq2seq.swipe.decoding.ctc_oracles import (
    QWERTY,
    by_alignments,
    by_torch,
    frames_of,
    lexicon_of,
    lexicon_of_pieces,
    word_of,
)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return lexicon_of_pieces(200)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), time=st.integers(0, 5), letters=st.integers(1, 3), spread=st.floats(0, 5))
def test_a_wide_beam_sums_over_all_alignments(seed, time, letters, spread):
    alphabet = "abc"[:letters]
    frames = frames_of(seed, 2, 5, letters, spread)
    found = beam_ctc(frames, np.array([time, 5]), alphabet, beam=1000, candidates=1000)
    for row, length in enumerate((time, 5)):
        expected = by_alignments(frames[row, :length], alphabet)
        assert {word for word, _ in found[row]} == expected.keys()
        assert len(found[row]) == len(expected)
        for word, score in found[row]:
            assert score == pytest.approx(expected[word], abs=1e-9)
        assert sum(np.exp(score) for _, score in found[row]) == pytest.approx(1)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_a_beam_of_the_whole_lexicon_equals_scoring_all_words(lexicon, weight):
    trie = PackedTrie.build(lexicon, QWERTY.alphabet)
    frames, lengths = frames_of(1, 3, 14, 26), np.array([14, 9, 4])
    found = beam_ctc(frames, lengths, QWERTY.alphabet, 2000, len(lexicon), trie, weight)
    for row, length in enumerate(lengths):
        scores = by_torch(frames[row, :length], lexicon.words, QWERTY.alphabet) + weight * lexicon.log_frequencies
        order = [k for k in np.argsort(-scores) if scores[k] > -np.inf]
        assert [word for word, _ in found[row]] == [lexicon.words[k] for k in order]
        np.testing.assert_allclose([score for _, score in found[row]], scores[order], rtol=0, atol=1e-9)


@pytest.mark.parametrize("beam", [1, 3, 16])
def test_a_beam_has_distinct_words_of_the_lexicon_with_at_most_their_probability(lexicon, beam):
    trie = PackedTrie.build(lexicon, QWERTY.alphabet)
    frames = frames_of(2, 5, 12, 26)
    for row, found in enumerate(beam_ctc(frames, np.full(5, 12), QWERTY.alphabet, beam, 16, trie)):
        words, scores = [word for word, _ in found], np.array([score for _, score in found])
        assert len({*words}) == len(words) <= beam
        assert all(word in trie for word in words)
        assert (np.diff(scores) <= 0).all()
        if words:
            assert (scores <= by_torch(frames[row], words, QWERTY.alphabet) + 1e-9).all()


def test_a_batch_gives_what_its_rows_give_alone(lexicon):
    trie = PackedTrie.build(lexicon, QWERTY.alphabet)
    frames, lengths = frames_of(3, 4, 10, 26), np.array([10, 3, 7, 0])
    for options in ({}, {"trie": trie, "language_weight": 0.5}, {"threshold": 3.0}):
        together = beam_ctc(frames, lengths, QWERTY.alphabet, 8, **options)
        for row, length in enumerate(lengths):
            alone = beam_ctc(frames[row : row + 1, :length], lengths[row : row + 1], QWERTY.alphabet, 8, **options)[0]
            assert [word for word, _ in together[row]] == [word for word, _ in alone]
            np.testing.assert_allclose([s for _, s in together[row]], [s for _, s in alone], atol=1e-12)


def test_a_threshold_drops_what_is_far_below_the_best_and_nothing_if_it_is_large():
    frames, lengths = frames_of(4, 3, 8, 26), np.full(3, 8)
    plain = beam_ctc(frames, lengths, QWERTY.alphabet, 16, 16)
    assert beam_ctc(frames, lengths, QWERTY.alphabet, 16, 16, threshold=1e9) == plain
    for row, best in zip(beam_ctc(frames, lengths, QWERTY.alphabet, 16, 16, threshold=0.5), plain, strict=True):
        assert 1 <= len(row) < len(best)
        assert row[-1].log_probability >= row[0].log_probability - 0.5


def test_greedy_takes_the_word_of_the_best_alignment_and_scores_it_over_all():
    frames, lengths = frames_of(5, 4, 4, 3), np.array([4, 3, 0, 4])
    frames[3, [0, 1, 3], 1] = frames[3, 2, 2] = 3.0  # aaba
    frames = torch.log_softmax(torch.tensor(frames), -1).numpy()
    for row, length in enumerate(lengths):
        paths = itertools.product(range(4), repeat=int(length))
        best = max(paths, key=lambda path: sum(frames[row, t, s] for t, s in enumerate(path)))
        word, score = greedy_ctc(frames, lengths, "abc")[row][0]
        assert word == word_of(best, "abc")
        assert score == pytest.approx(by_alignments(frames[row, :length], "abc")[word], abs=1e-9)


@pytest.mark.parametrize("threshold", [None, 3.0])
def test_a_row_without_any_possible_word_has_no_candidates(lexicon, threshold):
    trie = PackedTrie.build(lexicon, QWERTY.alphabet)
    frames = frames_of(6, 2, 5, 26)
    frames[0, 2] = -np.inf
    impossible, possible = beam_ctc(frames, np.full(2, 5), QWERTY.alphabet, 8, trie=trie, threshold=threshold)
    assert impossible == []
    assert beam_ctc(frames[1:], np.full(1, 5), QWERTY.alphabet, 8, trie=trie, threshold=threshold) == [possible]
    assert beam_ctc(frames[:1], np.full(1, 5), QWERTY.alphabet, 8, trie=trie, threshold=threshold) == [[]]


def test_prefixes_without_a_lexicon_have_different_identities():
    prefixes, found = AllPrefixes(26), {0}
    level = np.array([0])
    for _ in range(3):
        _, _, level = prefixes.extensions(level)
        found |= {*level.tolist()}
    assert len(found) == 1 + 26 + 26**2 + 26**3
    assert min(found) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alphabet": "ab"}, "Log-probabilities are"),
        ({"lengths": np.array([4])}, "Log-probabilities are"),
        ({"lengths": np.array([4, 6])}, "Lengths are within"),
        ({"lengths": np.array([-1, 2])}, "Lengths are within"),
        ({"beam": 0}, "Key 'beam' of decoding must"),
        ({"candidates": 0}, "Key 'candidates' of decoding must"),
        ({"threshold": -1.0}, "Key 'threshold' of decoding must"),
        ({"threshold": float("nan")}, "Key 'threshold' of decoding must"),
        ({"trie": PackedTrie.build(lexicon_of(["no", "on"]), QWERTY.alphabet)}, "A lexicon has the alphabet"),
    ],
)
def test_what_cannot_be_decoded_is_refused(change, message):
    given = {"log_probs": frames_of(0, 2, 5, 3), "lengths": np.array([5, 4]), "alphabet": "abc", **change}
    with pytest.raises(ConfigurationError, match=message):
        beam_ctc(**given)


def test_a_narrow_beam_looks_ahead_to_frequent_words():
    """The prefix of a frequent word is less likely at first, and its word is the best in the end."""
    lexicon = Lexicon(["aa", "ba"], np.log(np.array([0.001, 0.9], np.float32)), ["aa", "ba"])
    trie = PackedTrie.build(lexicon, "ab")
    frames = np.log(np.array([[[0.1, 0.5, 0.4], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]]))
    lengths = np.array([3])
    ((best,),) = beam_ctc(frames, lengths, "ab", beam=1, candidates=1, trie=trie, language_weight=1.0)
    ((exact, _),) = beam_ctc(frames, lengths, "ab", beam=64, candidates=2, trie=trie, language_weight=1.0)
    assert best.word == exact.word == "ba"
    ((without,),) = beam_ctc(frames, lengths, "ab", beam=1, candidates=1, trie=trie)
    assert without.word == "aa"
