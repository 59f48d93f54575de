"""Saved adapters with random values, and models with dense deltas added to their weights."""

import copy
import itertools

import pytest
import torch
from torch import nn

import adapters


def scrambled(model: nn.Module, seed: int, std: float = 0.3) -> nn.Module:
    """The model with random values in all trainable parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def native(tiny_t5, tmp_path):
    """A function from a description and a seed to an adapted T5 and the folder it was saved to."""
    counter = itertools.count()

    def make(description, seed=3, task=None, **fields):
        model = scrambled(adapters.attach(tiny_t5(**fields), description, task), seed)
        folder = tmp_path / f"native_{next(counter)}"
        adapters.save(model, folder, model_card=False)
        return model, folder

    return make


@pytest.fixture
def with_dense():
    """A function that adds dense weights and biases, in float64, to a copy of a model's linears."""

    def add(model, weights, biases):
        model = copy.deepcopy(model)
        with torch.no_grad():
            for path, weight in weights.items():
                linear = model.get_submodule(path)
                linear.weight.copy_(linear.weight.double() + weight)
                if path in biases:
                    bias = biases[path] if linear.bias is None else linear.bias + biases[path]
                    linear.bias = nn.Parameter(bias.to(linear.weight.dtype), requires_grad=False)
        return model

    return add
