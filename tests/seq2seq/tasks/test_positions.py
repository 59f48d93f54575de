"""How many tokens a model reads at once."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from adapters import ConfigurationError
from seq2seq.tasks.positions import check_positions

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
LIMITED = {
    "bert": ({**SIZES, "max_position_embeddings": 32}, 32),
    "roberta": ({**SIZES, "max_position_embeddings": 32, "pad_token_id": 1}, 30),
    "gpt2": ({"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16}, 16),
}
UNLIMITED = {
    "xlnet": {"d_model": 8, "n_layer": 1, "n_head": 1, "d_inner": 8},
    "bloom": {"hidden_size": 8, "n_layer": 1, "n_head": 1},
    "t5": {"d_model": 8, "d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1},
}


def empty(model_type, values):
    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.for_model(model_type, **values))


@pytest.mark.parametrize("model_type", LIMITED)
def test_more_tokens_than_positions_are_refused(model_type):
    values, longest = LIMITED[model_type]
    model = empty(model_type, values)
    check_positions(model, longest, "'window'")
    with pytest.raises(ConfigurationError, match=f"Key 'window' must be at most {longest}, .* got {longest + 1}"):
        check_positions(model, longest + 1, "'window'")


@pytest.mark.parametrize("model_type", UNLIMITED)
def test_relative_positions_have_no_end(model_type):
    check_positions(empty(model_type, UNLIMITED[model_type]), 10**6, "'window'")
