"""Finding the sublayers of a model, choosing among them, and the layer that a parameter belongs to."""

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from adapters import AdapterConfig, ConfigurationError
from adapters.base import architectures
from adapters.base.layout import ANY_NAME, Architecture, SublayerLayout
from adapters.base.sublayers import find_sublayers, layer_of, select_sublayers
from adapters.saved import architecture
from tests.adapters.models import MODELS


def test_t5_has_two_sublayers_per_encoder_block_and_three_per_decoder_block(tiny_t5):
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
        (norm,) = sublayer.norms
        assert norm.endswith("layer_norm")
        assert model.get_submodule(norm).weight.shape == (24,)
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
def test_models_built_like_t5_are_recognised(model_class, config_class):
    config = config_class(vocab_size=50, d_model=24, d_kv=6, d_ff=48, num_heads=4, num_layers=2)
    with torch.device("meta"):
        sublayers = find_sublayers(model_class(config))
    assert len(sublayers) == (5 if model_class is transformers.T5EncoderModel else 12)


def long_t5():
    config = transformers.LongT5Config(vocab_size=50, d_model=24, d_kv=6, d_ff=48, num_heads=4, num_layers=1)
    return transformers.LongT5EncoderModel(config)


def mixture_in_some_blocks():
    """Llama's block names, but another feed-forward sublayer in the second block."""
    model = transformers.LlamaModel(transformers.LlamaConfig(num_hidden_layers=2, vocab_size=50))
    model.layers[1].mlp = nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(4, 4)])})
    return model


class BlocksWithoutSublayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList([nn.Linear(2, 2)])


@pytest.mark.parametrize("build", [long_t5, mixture_in_some_blocks, BlocksWithoutSublayers])
def test_in_an_unknown_architecture_every_linear_is_another_one(build):
    with torch.device("meta"):
        model = build()
    sublayers = find_sublayers(model)
    assert {sublayer.kind for sublayer in sublayers} == {"other"}
    paths = {path for path, module in model.named_modules() if type(module) is nn.Linear}
    assert {path for sublayer in sublayers for path in sublayer.linears.values()} == paths
    config = AdapterConfig.from_dict({"kind": "tt_single"})
    with pytest.raises(ConfigurationError, match=r"'tt_single' needs to know the sublayers .* add an entry to"):
        select_sublayers(config, sublayers)


def test_stacks_of_unequal_depth_count_their_own_blocks(tiny_t5):
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
def test_selection_without_a_place_raises_with_the_selection(tiny_t5, fields, given):
    config = AdapterConfig.from_dict({"kind": "scale_norm", **fields})
    with pytest.raises(ConfigurationError, match=rf"'sublayers' .* got {given}: .* final in its encoder and "):
        select_sublayers(config, find_sublayers(tiny_t5()))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("encoder.block.3.layer.0.SelfAttention.q.weight", "encoder 3"),
        ("decoder.block.11.layer.2.layer_norm.weight", "decoder 11"),
        ("encoder.final_layer_norm.weight", "encoder"),
        ("shared.weight", "shared"),
        ("lm_head.weight", "lm_head"),
        ("encoder.block.3", "encoder 3"),
        ("base_model.model.decoder.block.2.layer.0.SelfAttention.q.base_layer.weight", "decoder 2"),
        ("encoder.block.1.layer.1.DenseReluDense.wi.beside.tt_lora.tasks.all_tasks.linear.cores.0", "encoder 1"),
        ("lm_head.beside.tt_lora.tasks.all_tasks.linear.cores.0", "lm_head"),
        ("model.layers.3.mlp.up_proj.weight", "layers 3"),
        ("transformer.h.11.attn.c_attn.weight", "h 11"),
        ("bert.encoder.layer.0.attention.self.query.bias", "layer 0"),
        ("model.norm.weight", "model"),
    ],
)
def test_layer_of_a_parameter_or_module(name, layer):
    assert layer_of(name) == layer


def test_another_architecture_is_one_table_entry(monkeypatch):
    entry = Architecture(
        name="Mixtral",
        model_types=("mixtral",),
        stacks={ANY_NAME: "decoder"},
        blocks="layers",
        layouts=(
            SublayerLayout("self_attention", (("q", "self_attn.q_proj"), ("o", "self_attn.o_proj")), ()),
            SublayerLayout("feed_forward", (("out", "mlp.router"),), ("post_attention_layernorm",)),
        ),
        final_norms=("norm",),
        config_keys=("model_type", "hidden_size"),
    )
    monkeypatch.setattr(architectures, "ARCHITECTURES", (*architectures.ARCHITECTURES, entry))
    monkeypatch.setattr(architecture, "ARCHITECTURES", architectures.ARCHITECTURES)
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    with torch.device("meta"):
        model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, num_hidden_layers=1))
        model.model.layers[0].mlp.router = nn.Linear(16, 16)
    attention, feed_forward, end, *others = find_sublayers(model)
    assert attention.linears == {f"{name}_proj": f"model.layers.0.self_attn.{name}_proj" for name in "qo"}
    assert feed_forward.output == "model.layers.0.mlp.router"
    assert feed_forward.norms == ("model.layers.0.post_attention_layernorm",)
    assert (end.kind, end.norms, end.linears) == ("final", ("model.norm",), {"lm_head": "lm_head"})
    assert [list(other.linears) for other in others] == [["self_attn-k_proj"], ["self_attn-v_proj"]]
    assert architecture.architecture_of_config(model.config) == {"model_type": "mixtral", "hidden_size": 16}


@pytest.mark.parametrize("model_type", ["bart", "mbart", "pegasus", "blenderbot", "m2m_100"])
def test_the_last_norm_of_a_stack_under_each_of_its_names(model_type):
    values = {**MODELS["bart"][1], "max_position_embeddings": 16}
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(model_type, **values))
    found = {sublayer.stack: sublayer.norms for sublayer in find_sublayers(model) if sublayer.kind == "final"}
    name = () if model_type == "bart" else ("layer_norm",)
    assert found == {stack: tuple(f"model.{stack}.{norm}" for norm in name) for stack in ("encoder", "decoder")}


def test_the_stacks_of_two_architectures_in_one_model():
    """A BERT that reads a ViT: none of the two is left out, and the output projection is the last one's."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    image, text = transformers.ViTConfig(**sizes), transformers.BertConfig(**sizes, vocab_size=20)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(image, text)
    with torch.device("meta"):
        model = transformers.VisionEncoderDecoderModel(config)
    found = [sublayer for sublayer in find_sublayers(model) if sublayer.kind not in ("other", "embedding")]
    assert [(sublayer.stack, sublayer.kind) for sublayer in found] == [
        *(("encoder", kind) for kind in ("self_attention", "feed_forward", "final")),
        *(("decoder", kind) for kind in ("self_attention", "cross_attention", "feed_forward", "final")),
    ]
    assert [sublayer.linears for sublayer in found if sublayer.kind == "final"] == [
        {},
        {"lm_head": "decoder.cls.predictions.decoder"},
    ]
