"""SwipeForConditionalGeneration: its loss, what generate writes with and without a cache, and folders."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoModelForSeq2SeqLM

from adapters import ConfigurationError
from tests.third_party.models.swipe.batches import ALPHABET, LENGTHS, batch, generator, row
from third_party.models.swipe import SwipeForConditionalGeneration

BOTH = pytest.mark.parametrize("encoder", ["transformer", "conformer"])
LABELS = torch.tensor([[2, 3, 3, 8, 1], [4, 4, 1, -100, -100], [6, 1, -100, -100, -100]])
GOLDEN = {1: [], 3: []}


def spread(model, factor=3.0):
    """The model with larger logits, so that different traces give different words."""
    with torch.no_grad():
        model.shared.weight.mul_(factor)
        for parameter in model.decoder.block.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)
    return model


def log_probability(model, inputs, tokens):
    """The sum of the log-probabilities of the tokens (1, length) after the first one, up to the end of the word."""
    logits = model(**inputs, decoder_input_ids=tokens[:, :-1]).logits
    scores = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[0, :, 0]
    ends = (tokens[0, 1:] == 1).nonzero()
    return scores[: ends[0].item() + 1 if len(ends) else None].sum()


@BOTH
def test_the_loss_is_the_mean_over_rows_of_their_log_probabilities(encoder):
    model, inputs = generator(torch.float64, encoder=encoder), batch(torch.float64)
    output = model(**inputs, labels=LABELS)
    expected = 0
    for index in range(3):
        word = LABELS[index : index + 1][LABELS[index : index + 1] != -100][None]
        tokens = functional.pad(word, (1, 0))
        expected = expected - log_probability(model, row(inputs, index), tokens) / 3
    torch.testing.assert_close(output.loss, expected)
    assert output.logits.shape == (3, 5, 2 + len(ALPHABET))


@BOTH
@pytest.mark.parametrize("beams", [1, 3])
def test_a_cache_changes_nothing(encoder, beams):
    model, inputs = spread(generator(torch.float64, encoder=encoder)), batch(torch.float64)
    options = {"num_beams": beams, "max_new_tokens": 7}
    found = model.generate(**inputs, **options)
    assert torch.equal(found, model.generate(**inputs, **options, use_cache=False))
    assert found.dtype == torch.int64
    assert (found[:, 0] == 0).all()


def test_greedy_words_are_the_best_next_tokens():
    model, inputs = spread(generator(torch.float64)), batch(torch.float64)
    words = model.generate(**inputs, max_new_tokens=7)
    assert len({tuple(word) for word in words.tolist()}) > 1
    for index in range(3):
        alone = row(inputs, index)
        logits = model(**alone, decoder_input_ids=words[index : index + 1, :-1]).logits[0]
        for step, token in enumerate(words[index, 1:].tolist()):
            assert logits[step].argmax() == token
            if token == 1:
                break


def test_beams_score_words_as_teacher_forcing_does():
    model, inputs = spread(generator(torch.float64)), batch(torch.float64)
    options = {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0, "max_new_tokens": 4}
    found = model.generate(**inputs, **options, return_dict_in_generate=True, output_scores=True)
    words = found.sequences.reshape(3, 4, -1)
    for index in range(3):
        alone = row(inputs, index)
        scores = [log_probability(model, alone, word[None]) for word in words[index]]
        torch.testing.assert_close(found.sequences_scores.reshape(3, 4)[index], torch.stack(scores))
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(word.tolist()) for word in words[index]}) == 4


def test_traces_are_encoded_once():
    model, calls = generator(), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    model.generate(**batch(), num_beams=3, max_new_tokens=6)
    assert len(calls) == 1


@BOTH
def test_padding_changes_nothing(encoder):
    model, inputs = generator(torch.float64, encoder=encoder), batch(torch.float64)
    logits = model(**inputs, labels=LABELS).logits
    for index in range(len(LENGTHS)):
        alone = model(**row(inputs, index), labels=LABELS[index : index + 1]).logits
        torch.testing.assert_close(logits[index : index + 1], alone)


def test_encode_and_decode_are_the_two_halves():
    model, inputs = generator(), batch()
    tokens = functional.pad(LABELS.clamp(min=0), (1, 0))[:, :-1]
    states = model.encode(**inputs).last_hidden_state
    assert states.shape == (3, 9, 16)
    decoded = model.decode(states, inputs["attention_mask"], tokens)
    assert torch.equal(decoded, model(**inputs, labels=LABELS).logits)


@BOTH
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSeq2SeqLM, SwipeForConditionalGeneration])
def test_a_folder_gives_the_same_model(tmp_path, encoder, auto):
    model, inputs = spread(generator(encoder=encoder)), batch()
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert isinstance(loaded, SwipeForConditionalGeneration)
    assert torch.equal(loaded(**inputs, labels=LABELS).logits, model(**inputs, labels=LABELS).logits)
    assert torch.equal(loaded.generate(**inputs), model.generate(**inputs))


def test_every_parameter_gets_a_gradient():
    model = generator(features="gaussians")
    model(**batch(), labels=LABELS).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_sixteen_bits_are_near():
    model, inputs = generator(), batch()
    expected = model(**inputs, labels=LABELS)
    output = model.to(torch.bfloat16)(**inputs, labels=LABELS)
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.logits.float(), expected.logits, atol=0.15, rtol=0)


def test_it_compiles_as_one_graph():
    model, inputs = generator(), batch()
    found = torch.compile(model, backend="eager", fullgraph=True)(**inputs, labels=LABELS)
    torch.testing.assert_close(found.loss, model(**inputs, labels=LABELS).loss)


@pytest.mark.parametrize("beams", GOLDEN)
def test_golden_output(beams):
    """A model whose weights are a formula and not random; the same tokens on every machine."""
    model = generator(torch.float64)
    with torch.no_grad():
        for number, (_, parameter) in enumerate(sorted(model.named_parameters())):
            values = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_(torch.sin(values * 0.37 + number).reshape(parameter.shape))
    time = torch.arange(9, dtype=torch.float64)
    points = torch.stack([torch.stack([0.4 * time * k, 1 + torch.sin(time * k)], -1) for k in (1, 2, 3)])
    words = model.generate(**{**batch(torch.float64), "points": points}, num_beams=beams, max_new_tokens=5)
    assert words.dtype == torch.int64
    assert words.tolist() == GOLDEN[beams]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"labels": torch.full((3, 2), 9)}, "1 to 8"),
        ({"labels": torch.zeros(3, 2, dtype=torch.int64)}, "1 to 8"),
        ({"labels": torch.ones(3, dtype=torch.int64)}, "(3, longest)"),
        ({"boxes": torch.zeros(3, 6, 4)}, "(3, 7, 4)"),
        ({"boxes": None}, "(3, 7, 4)"),
        ({"points": None}, "(batch, time, 2)"),
    ],
    ids=str,
)
def test_wrong_inputs_are_refused(changes, part):
    with pytest.raises(ConfigurationError) as caught:
        generator()(**{**batch(), "labels": LABELS, **changes})
    assert part in str(caught.value)
    assert f"'{next(iter(changes))}'" in str(caught.value)
