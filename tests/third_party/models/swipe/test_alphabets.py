"""A model for another alphabet: what it keeps of the first one, and an adapter with new letters."""

import pytest
import torch

import adapters
from tests.third_party.models.swipe.batches import ALPHABET, batch, ctc, generator
from third_party.models.swipe import FEATURES, with_alphabet

OTHER = "xgfayc"
"""Of "abcdefg" it has a, c, f and g, in another order."""


def for_letters(inputs, letters):
    """The inputs for another alphabet; letters that are not in the first one have no key."""
    boxes = torch.tensor([1e3, 1e3, 1.0, 1.0]).repeat(3, len(letters), 1)
    for place, letter in enumerate(letters):
        if letter in ALPHABET:
            boxes[:, place] = inputs["boxes"][:, ALPHABET.index(letter)]
    return {**inputs, "boxes": boxes}


@pytest.mark.parametrize("features", sorted(set(FEATURES) - {"google2015"}))  # normalized over all letters
@pytest.mark.parametrize("make", [ctc, generator])
def test_more_letters_and_another_order_change_no_logits(features, make):
    """Letters that have no key have no features, so the others have the logits that they had."""
    model, inputs, letters = make(features=features), batch(), "xgfdayecb"
    labels, first = {"labels": torch.full((3, 1), -100)}, 1 if make is ctc else 2
    other = with_alphabet(model, letters)
    expected, found = model(**inputs, **labels).logits, other(**for_letters(inputs, letters), **labels).logits
    places = [*range(first), *(first + letters.index(letter) for letter in ALPHABET)]
    torch.testing.assert_close(found[..., places], expected)
    assert other.config.alphabet == letters
    assert model.config.alphabet == ALPHABET


def test_the_same_alphabet_gives_the_same_model():
    model = generator(features="gaussians")
    for name, parameter in with_alphabet(model, ALPHABET).named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


def test_an_adapter_with_new_letters_is_saved_beside_the_base(tmp_path):
    base, inputs = ctc(), for_letters(batch(), OTHER)
    letters = {"kind": "weights", "target_parameters": ["read_in.linear.weight", "head.weight", "head.bias"]}
    model = adapters.attach(with_alphabet(base, OTHER), [letters, {"kind": "tt_lora", "rank": 2}])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.requires_grad)
    adapters.save(model, tmp_path)
    loaded = adapters.load(with_alphabet(base, OTHER), tmp_path)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_adapters_come_after_the_alphabet():
    with pytest.raises(adapters.ConfigurationError, match=r"'alphabet'.*adapters"):
        with_alphabet(adapters.attach(ctc(), {"kind": "tt_lora", "rank": 2}), OTHER)
