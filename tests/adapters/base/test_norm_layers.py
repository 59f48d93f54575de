"""The layer norms of base models compute the maps that they are said to compute."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from adapters.base.norm_layers import AROUND_ONE, centred, epsilon, is_norm, offset
from tests.adapters.models import MODELS, tiny


@pytest.mark.parametrize("name", MODELS)
def test_the_map_of_each_norm(name):
    """In float64, as a product of its weight and the scaled input."""
    for norm in filter(is_norm, tiny(name).modules()):
        x = torch.randn(3, len(norm.weight), generator=torch.Generator().manual_seed(0))
        weight = norm.weight.double() + offset(type(norm))
        scaled = centred(type(norm), x).double()
        expected = weight * scaled / (scaled.square().mean(-1, keepdim=True) + epsilon(norm)).sqrt()  # (3, dim)
        bias = getattr(norm, "bias", None)
        expected = expected if bias is None else expected + bias.double()
        assert torch.allclose(norm(x).double(), expected, atol=1e-5), type(norm)


def test_every_class_that_stores_the_weight_minus_one_is_known():
    """Also those of architectures that have no entry yet but the names of one that has."""
    found = set()
    for file in (Path(transformers.__file__).parent / "models").glob("*/modeling_*.py"):
        for name, body in re.findall(r"^class (\w+)\(.*?\):\n(.*?)(?=^\S|\Z)", file.read_text("utf-8"), re.M | re.S):
            if re.search(r"1(\.0)? \+ self\.weight|self\.weight \+ 1", body):
                found.add(name)
    assert found <= set(AROUND_ONE)


def test_other_modules_are_no_norms():
    assert not any(map(is_norm, (nn.Linear(2, 2), nn.LayerNorm(2, elementwise_affine=False), nn.LayerNorm((2, 2)))))
