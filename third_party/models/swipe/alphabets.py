"""The same model for another alphabet: letters that both have keep their weights, those that are new start random.

    tensor                             letters are    at
    read_in.linear.weight              columns        0        (not if the features have none of letters)
    read_in.features...log_widths      rows           0        (gaussians)
    head.weight, head.bias             rows           1        (CTC; the blank is first)
    shared.weight                      rows           2        (tokens of a decoder; padding and the end are first)

To adapt a frozen model to another language: make it one for that alphabet, then attach an adapter beside the kind
"weights" for the read-in and the head. Both together are saved by ``adapters.save``; the base file stays as it is.
"""

from typing import TypeVar

import torch
from torch import nn

import adapters
from adapters.validation import refuse
from third_party.models.swipe.configuration import FIRST_LETTER, FIRST_LETTER_TOKEN, WHERE, SwipeConfig
from third_party.models.swipe.encoder import SwipePreTrainedModel
from third_party.models.swipe.keys import PerLetter

Model = TypeVar("Model", bound=SwipePreTrainedModel)


@torch.no_grad()
def with_alphabet(model: Model, alphabet: str) -> Model:
    """A copy of a model for another alphabet, in evaluation mode; new letters are drawn with torch's seed.

    Args:
        model: a swipe model without adapters; it stays as it is.
        alphabet: each letter once.

    Raises:
        ConfigurationError: the alphabet is not valid, or the model has adapters.
    """
    if adapters.attachments(model):
        refuse("alphabet", "changes before adapters are attached", "a model with adapters", "attach them later", WHERE)
    old = model.config.alphabet
    keys = {**model.config.to_dict(), "alphabet": alphabet}
    made = type(model)(SwipeConfig(**keys)).to(model.device, model.dtype).eval()
    places = letter_places(made)
    given = dict(model.named_parameters())
    common = [letter for letter in alphabet if letter in old]
    for name, parameter in made.named_parameters():
        if name not in places:
            parameter.copy_(given[name])
            continue
        dim, first = places[name]
        to, since = (
            kept_indices(letters, common, first, p.shape[dim])
            for letters, p in ((alphabet, parameter), (old, given[name]))
        )
        source = given[name].index_select(dim, since.to(model.device))
        parameter.index_copy_(dim, to.to(model.device), source)
    return made


def letter_places(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The parameters that have a slice for each letter: their dimension, and the index of the first letter."""
    found = {"head.weight": (0, FIRST_LETTER), "head.bias": (0, FIRST_LETTER), "shared.weight": (0, FIRST_LETTER_TOKEN)}
    if isinstance(model.read_in.features.parts[0], PerLetter):
        found["read_in.linear.weight"] = (1, 0)
        found["read_in.features.parts.0.log_widths"] = (0, 0)
    return found


def kept_indices(letters: str, common: list[str], first: int, size: int) -> torch.Tensor:
    """Where a tensor with slices for ``letters`` from ``first`` on has what is kept: all others, and common letters."""
    kept = [first + letters.index(letter) for letter in common]
    return torch.tensor([*range(first), *kept, *range(first + len(letters), size)])
