"""A lexicon in ``generate``: equal to scoring every word with the decoder, for a T5 with random weights."""

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList, T5Config, T5ForConditionalGeneration

from adapters import ConfigurationError
from seq2seq.swipe.decoding.lexicon_processor import (
    LexiconProcessor,
    allowed_tokens,
    beam_generate,
    masked_cross_entropy,
)
from seq2seq.swipe.lexicon.trie import PackedTrie
from seq2seq.swipe.lexicon.words import Lexicon
from tests.seq2seq.swipe.decoding.ctc_oracles import QWERTY, lexicon_of

ALPHABET = QWERTY.alphabet
WORDS = ["a", "all", "ball", "bell", "be", "bee", "been", "he", "hell", "hello", "help", "yes", "zoo"]
LEXICON = lexicon_of(WORDS)
TRIE = PackedTrie.build(LEXICON, ALPHABET)
BATCH = 3


@pytest.fixture(scope="module")
def model() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    config = T5Config(vocab_size=2 + len(ALPHABET), decoder_start_token_id=0, alphabet=ALPHABET, **sizes)
    model = T5ForConditionalGeneration(config).eval()
    model.lm_head.weight.data.mul_(3.0)  # a sharper distribution, which differs between rows
    return model


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    points = torch.randn(BATCH, 7, 16, generator=torch.Generator().manual_seed(1)) * 3
    mask = (torch.arange(7) < torch.tensor([7, 4, 5])[:, None]).long()
    return {"inputs_embeds": points, "attention_mask": mask}


@torch.no_grad()
def by_teacher_forcing(model, batch, words):
    """Log-probabilities of all words, (batch, words) float64, one word at a time."""
    found = torch.empty(BATCH, len(words), dtype=torch.float64)
    for k, word in enumerate(words):
        labels = torch.tensor([[*(2 + ALPHABET.index(letter) for letter in word), 1]]).repeat(BATCH, 1)
        log_probs = torch.log_softmax(model(**batch, labels=labels).logits.double(), -1)
        found[:, k] = log_probs.gather(2, labels[..., None]).sum((1, 2))
    return found.numpy()


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_beam_of_the_whole_lexicon_equals_scoring_all_words(model, batch, weight):
    scores = by_teacher_forcing(model, batch, LEXICON.words) + weight * LEXICON.log_frequencies
    found = beam_generate(model, batch, 16, len(WORDS), TRIE, weight)
    for row, expected in zip(found, scores, strict=True):
        order = np.argsort(-expected)
        assert [word for word, _ in row] == [LEXICON.words[k] for k in order]
        np.testing.assert_allclose([score for _, score in row], expected[order], rtol=0, atol=1e-4)


def test_more_candidates_than_words_are_not_made_up(model, batch):
    for row in beam_generate(model, batch, 40, 30, TRIE):
        assert sorted(word for word, _ in row) == LEXICON.words


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_narrow_beam_has_words_with_their_exact_scores(model, batch, beam):
    scores = by_teacher_forcing(model, batch, LEXICON.words) + 0.5 * LEXICON.log_frequencies
    for row, expected in zip(beam_generate(model, batch, beam, beam, TRIE, 0.5), scores, strict=True):
        words = [word for word, _ in row]
        assert 1 <= len(words) == len({*words})
        own = expected[[LEXICON.words.index(word) for word in words]]
        np.testing.assert_allclose([score for _, score in row], own, atol=1e-4)


def test_greedy_follows_the_likeliest_letter_that_the_lexicon_allows(model, batch):
    ids = np.zeros((BATCH, 1), np.int64)
    expected = [""] * BATCH
    for row in range(BATCH):
        one = {key: value[row : row + 1] for key, value in batch.items()}
        ids = [0]
        while ids[-1] != 1:
            with torch.no_grad():
                logits = model(**one, decoder_input_ids=torch.tensor([ids])).logits[0, -1].numpy()
            node = TRIE.node(expected[row])
            allowed = allowed_tokens(TRIE, np.array([node]))[0]
            if (word := TRIE.words_at(node)) >= 0:
                logits[1] += 0.5 * LEXICON.log_frequencies[word]
            ids.append(int(np.where(allowed, logits, -np.inf).argmax()))
            expected[row] += "" if ids[-1] == 1 else ALPHABET[ids[-1] - 2]
    assert [row[0].word for row in beam_generate(model, batch, 1, 1, TRIE, 0.5)] == expected


@pytest.mark.parametrize("beam", [1, 4])
def test_without_a_lexicon_words_are_distinct_letters_with_their_exact_scores(model, batch, beam):
    model.lm_head.weight.data[1] += 0.5
    try:
        found = beam_generate(model, batch, beam, beam)
        words = sorted({word for row in found for word, _ in row})
        scores = by_teacher_forcing(model, batch, words)
    finally:
        model.lm_head.weight.data[1] -= 0.5
    assert all({*word} <= {*ALPHABET} and word for word in words)
    for number, row in enumerate(found):
        assert len({word for word, _ in row}) == len(row)
        for word, score in row:
            assert score == pytest.approx(scores[number, words.index(word)], abs=1e-3)


def test_sampling_spells_words_and_pads_behind_them(model, batch):
    torch.manual_seed(0)
    ids = model.generate(
        **batch,
        do_sample=True,
        top_k=0,
        max_new_tokens=6,
        num_return_sequences=8,
        logits_processor=LogitsProcessorList([LexiconProcessor(TRIE)]),
    )
    for row in ids.tolist():
        end = row.index(1)
        assert "".join(ALPHABET[token - 2] for token in row[1:end]) in WORDS
        assert {*row[end + 1 :]} <= {0}


def test_the_masked_loss_is_that_of_a_softmax_over_what_the_lexicon_allows():
    logits = torch.randn(2, 4, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    letters = [[2 + ALPHABET.index(letter) for letter in word] for word in ("bee", "a")]
    labels = torch.tensor([[*letters[0], 1], [*letters[1], 1, -100, -100]])
    following = [["abhyz", "ae", "el.", "n."], ["abhyz", ".l"]]  # by hand from WORDS
    terms = []
    for row, choices in enumerate(following):
        for step, letters in enumerate(choices):
            tokens = [1 if letter == "." else 2 + ALPHABET.index(letter) for letter in letters]
            terms.append(logits[row, step, tokens].logsumexp(0) - logits[row, step, labels[row, step]])
    loss = masked_cross_entropy(logits, labels, TRIE)
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item())
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_a_word_outside_the_lexicon_has_a_finite_loss():
    logits = torch.randn(1, 4, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[*(2 + ALPHABET.index(letter) for letter in "bzx"), 1]])
    loss = masked_cross_entropy(logits, labels, TRIE)
    tokens = [
        [2 + ALPHABET.index(c) for c in "abhyz"],
        [2 + ALPHABET.index(c) for c in "aez"],
        [*range(28)],
        [*range(28)],
    ]
    terms = [logits[0, k, t].logsumexp(0) - logits[0, k, labels[0, k]] for k, t in enumerate(tokens)]
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "Key 'beam' of decoding"),
        ({"beam": 2, "candidates": 3}, "Key 'candidates' of decoding must be at most the beam"),
        ({"trie": PackedTrie.build(Lexicon(["a"], np.zeros(1, np.float32), ["a"]), "ab")}, "Key 'lexicon' of decoding"),
    ],
)
def test_what_cannot_be_decoded_is_refused(model, batch, options, message):
    with pytest.raises(ConfigurationError, match=message):
        beam_generate(model, batch, **options)
