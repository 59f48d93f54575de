"""The parameters of GPT-2 with factorized feed-forward weights, as published, on the meta device."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

import adapters

WITHOUT_FEED_FORWARD = 67_816_704
LAYERS = 12
CASES = {
    "64x32": ({"first_shape": [64, 32]}, 67_893_504),
    "256x64": ({"first_shape": [256, 64]}, 68_213_376),
    "256x64, 10 factors": ({"first_shape": [256, 64], "factors": 10}, 71_783_424),
    "1024x256": ({"first_shape": [1024, 256]}, 74_108_376),
    "1024x256, 2 factors": ({"first_shape": [1024, 256], "factors": 2}, 80_400_048),
    "1024x256, 4 factors": ({"first_shape": [1024, 256], "factors": 4}, 92_983_392),
    "768x768": ({"first_shape": [768, 768]}, 81_972_576),
    "1536x384": ({"first_shape": [1536, 384]}, 81_972_576),
    "3072x384": ({"first_shape": [3072, 384]}, 96_128_304),
    "by name": ({"first_shape": {"c_fc": [3072, 384], "c_proj": [384, 3072]}}, 96_128_304),
    "low rank": ({"format": "low_rank", "rank": 100}, WITHOUT_FEED_FORWARD + LAYERS * 2 * 100 * (768 + 3072)),
    "ranks are cut": ({"format": "low_rank", "rank": 10**6}, WITHOUT_FEED_FORWARD + LAYERS * 2 * 768 * (768 + 3072)),
    "tensor train": (
        {"format": "tensor_train", "rank": 8},
        WITHOUT_FEED_FORWARD + LAYERS * 2 * 8 * (12 * 8 + 16 * 8 * 8 + 16 * 12),
    ),
    "scalars": ({"first_shape": [256, 64], "factors": 10, "scalars": True}, 71_783_424 + LAYERS * 2 * 10),
    "a pattern": (
        {"first_shape": [256, 64], "rank_pattern": {r"h\.[01]\.mlp\..*": 10}},
        68_213_376 + (71_783_424 - 68_213_376) // 6,
    ),
}


PUBLISHED = {
    "gpt2_67m": 67_893_504 + 9 * LAYERS * 2 * (64 * 32 + 48 * 24),
    "gpt2_81m": 81_972_576,
    "gpt2_92m": 92_983_392,
    "gpt2_96m_van_loan": 96_128_304,
    "gpt2_96m_pruned": 96_128_304,
    "gpt2_82m_tensor_train": WITHOUT_FEED_FORWARD + LAYERS * 2 * 66 * (12 * 8 + 16 * 8 * 66 + 16 * 12),
}


@pytest.mark.parametrize("path", sorted(Path("configs/kronecker").glob("gpt2_*.json")), ids=lambda path: path.stem)
def test_a_published_configuration_has_its_count(path):
    factorizations = json.loads(path.read_text())["factorize"]
    with torch.device("meta"):
        model = adapters.factorize(AutoModelForCausalLM.from_config(GPT2Config()), factorizations)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED.pop(path.stem)


@pytest.mark.parametrize(("config", "count"), CASES.values(), ids=CASES)
def test_the_count_is_exact(config, count):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(GPT2Config())
    dense = sum(parameter.numel() for parameter in model.parameters())
    assert dense - LAYERS * 2 * 768 * 3072 == WITHOUT_FEED_FORWARD
    adapters.factorize(model, config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert all(parameter.is_meta for parameter in model.parameters())
