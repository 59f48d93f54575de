"""Finding the sublayers of a T5, and choosing among them."""

import pytest
import torch
import transformers
from torch import nn

from adapters import AdapterConfig, ConfigurationError
from adapters.base.sublayers import find_sublayers, layer_of, select_sublayers


def test_a_t5_has_two_sublayers_in_an_encoder_block_and_three_in_a_decoder_block(tiny_t5):
    model = tiny_t5("gated-gelu", num_layers=1)
    sublayers = find_sublayers(model)
    assert [(sublayer.stack, sublayer.layer, sublayer.kind) for sublayer in sublayers] == [
        ("encoder", 0, "self_attention"),
        ("encoder", 0, "feed_forward"),
        ("encoder", None, "final"),
        *(("decoder", block, k) for block in (0, 1) for k in ("self_attention", "cross_attention", "feed_forward")),
        ("decoder", None, "final"),
    ]
    assert list(sublayers[0].linears) == ["q", "k", "v", "o"]
    assert list(sublayers[1].linears) == ["wi_0", "wi_1", "wo"]
    for sublayer in sublayers:
        assert sublayer.norm.endswith("layer_norm")
        assert model.get_submodule(sublayer.norm).weight.shape == (24,)
        assert all(isinstance(model.get_submodule(path), nn.Linear) for path in sublayer.linears.values())
    assert sublayers[0].output == "encoder.block.0.layer.0.SelfAttention.o"
    assert sublayers[1].output == "encoder.block.0.layer.1.DenseReluDense.wo"


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [
        (transformers.MT5ForConditionalGeneration, transformers.MT5Config),
        (transformers.UMT5ForConditionalGeneration, transformers.UMT5Config),
        (transformers.T5EncoderModel, transformers.T5Config),
    ],
)
def test_models_built_like_t5_will_do(model_class, config_class):
    config = config_class(vocab_size=50, d_model=24, d_kv=6, d_ff=48, num_heads=4, num_layers=2)
    with torch.device("meta"):
        sublayers = find_sublayers(model_class(config))
    assert len(sublayers) == (5 if model_class is transformers.T5EncoderModel else 12)


def bart():
    return transformers.BartModel(
        transformers.BartConfig(
            vocab_size=50,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
        )
    )


def long_t5():
    config = transformers.LongT5Config(vocab_size=50, d_model=24, d_kv=6, d_ff=48, num_heads=4, num_layers=1)
    return transformers.LongT5EncoderModel(config)


class BlocksWithoutSublayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList([nn.Linear(2, 2)])


@pytest.mark.parametrize("build", [bart, long_t5, BlocksWithoutSublayers, lambda: nn.Linear(2, 2)])
def test_another_architecture_is_refused_with_the_way_that_takes_it(build):
    with torch.device("meta"):
        model = build()
    with pytest.raises(ConfigurationError, match=r"use the PEFT tuner in adapters\.peft"):
        find_sublayers(model)


def test_stacks_of_unequal_depth_have_their_own_block_numbers(tiny_t5):
    sublayers = find_sublayers(tiny_t5(num_layers=1, num_decoder_layers=3))

    def chosen(**fields):
        config = AdapterConfig.from_dict({"kind": "tt_single", "sublayers": ["feed_forward"], **fields})
        return [(sublayer.stack, sublayer.layer) for sublayer in select_sublayers(config, sublayers)]

    assert chosen() == [("encoder", 0), ("decoder", 0), ("decoder", 1), ("decoder", 2)]
    assert chosen(layers=[0, 2]) == [("encoder", 0), ("decoder", 0), ("decoder", 2)]
    with pytest.raises(ConfigurationError, match=r"'layers' .* counts blocks from 0 to 0 here"):
        chosen(layers=[1], stacks=["encoder"])


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({"layers": [0], "sublayers": ["final"]}, r"\['final'\] in layers \[0\] of \['encoder', 'decoder'\]"),
        ({"stacks": ["encoder"], "sublayers": ["cross_attention"]}, r"\['cross_attention'\] in \['encoder'\]"),
    ],
)
def test_a_choice_that_leaves_no_place_is_refused_with_what_was_chosen(tiny_t5, fields, given):
    config = AdapterConfig.from_dict({"kind": "scale_norm", **fields})
    with pytest.raises(ConfigurationError, match=rf"'sublayers' .* got {given}: .* a final norm in no layer"):
        select_sublayers(config, find_sublayers(tiny_t5()))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("encoder.block.3.layer.0.SelfAttention.q.weight", "encoder 3"),
        ("decoder.block.11.layer.2.layer_norm.weight", "decoder 11"),
        ("encoder.final_layer_norm.weight", "encoder"),
        ("shared.weight", "shared"),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_a_parameter_belongs_to_the_block_that_its_name_begins_with(name, layer):
    assert layer_of(name) == layer
