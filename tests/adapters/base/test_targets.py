"""Linears by name, by role and by regular expression, in every known architecture."""

import pytest
import torch
from torch import nn

import adapters
from adapters import AdapterConfig, ConfigurationError
from adapters.base.sublayers import find_sublayers
from tests.adapters.models import MODELS, tiny

PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}
BERT = {"in": "intermediate.dense", "out": "output.dense"}
BERT_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "attention.output.dense"}
LLAMA = {**PROJECTIONS, "o": "o_proj", "gate": "gate_proj", "in": "up_proj", "out": "down_proj"}
ROLES = {
    "bart": {**PROJECTIONS, "o": "out_proj", "in": "fc1", "out": "fc2"},
    "opt": {**PROJECTIONS, "o": "out_proj", "in": "fc1", "out": "fc2"},
    "bert": {**BERT, **BERT_ATTENTION},
    "roberta": {**BERT, **BERT_ATTENTION},
    "deberta-v2": {
        **BERT,
        "q": "query_proj",
        "k": "key_proj",
        "v": "value_proj",
        "o": "attention.output.dense",
    },
    "distilbert": {"q": "q_lin", "k": "k_lin", "v": "v_lin", "o": "out_lin", "in": "lin1", "out": "lin2"},
    "mpnet": {**BERT, "q": "q", "k": "k", "v": "v", "o": "o"},
    "gpt2": {"qkv": "c_attn", "o": "attn.c_proj", "in": "c_fc", "out": "mlp.c_proj"},
    "gpt_neox": {"qkv": "query_key_value", "o": "attention.dense", "in": "dense_h_to_4h", "out": "dense_4h_to_h"},
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma2", "gemma3_text"), LLAMA),
    "phi3": {"qkv": "qkv_proj", "o": "o_proj", "gate_in": "gate_up_proj", "out": "down_proj"},
    "vit": {**PROJECTIONS, "o": "o_proj", "in": "fc1", "out": "fc2"},
}


def named(model, **fields):
    """The paths of the linears that a tt_lora with these fields has deltas beside."""
    config = AdapterConfig.from_dict({"kind": "tt_lora", **fields})
    return {place.path for place in config.places(find_sublayers(model))}


@pytest.mark.parametrize("name", MODELS)
def test_roles(name):
    with torch.device("meta"):
        model = tiny(name)
    paths = {path for path, module in model.named_modules() if f".{path}".endswith(tuple(ROLES[name].values()))}
    by_role = {role: named(model, target_modules=[role]) for role in ROLES[name]}
    for role, end in ROLES[name].items():
        other = ("attention.output.dense",) if end == "output.dense" else ()
        expected = {path for path in paths if path.endswith(f".{end}") and not path.endswith(other)}
        layers = 6 if name == "bart" and role in "qkvo" else 4 if name == "bart" else 2
        assert by_role[role] == expected
        assert len(expected) == layers
    feed_forward = {role for role in ROLES[name] if role in ("in", "gate", "out", "gate_in")}
    assert named(model) == set().union(*(by_role[role] for role in feed_forward))
    everything = named(model, target_modules="all-linear")
    assert everything >= set().union(*by_role.values())
    assert not any("classifier" in path or "lm_head" in path for path in everything)


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("gpt2", "q", r"got 'q': this model computes it in 'c_attn', whose role is 'qkv'"),
        ("phi3", "gate", r"got 'gate': this model computes it in 'gate_up_proj', whose role is 'gate_in'"),
        ("bert", "querry", r"got 'querry': did you mean 'query'"),
        ("llama", "q_prog", r"got 'q_prog': did you mean 'q_proj'"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_the_nearest(name, target, message):
    with torch.device("meta"):
        model = tiny(name)
    with pytest.raises(ConfigurationError, match=message):
        named(model, target_modules=[target])


def test_exclude_modules_and_regular_expressions():
    with torch.device("meta"):
        model = tiny("bert")
    both = {f"bert.encoder.layer.{layer}.attention.self.{name}" for layer in (0, 1) for name in ("query", "value")}
    assert named(model, target_modules=["q", "v"]) == both
    assert named(model, target_modules=r".*\.(query|value)") == both
    assert named(model, target_modules=["q", "k", "v"], exclude_modules=["key"]) == both
    assert named(model, target_modules=["q", "v"], layers=[1]) == {path for path in both if ".1." in path}
    assert named(model, target_modules=["q", "v"], exclude_modules=r".*layer\.0\..*") == {p for p in both if ".1." in p}
    assert named(model, target_modules=["pooler.dense"]) == {"bert.pooler.dense"}
    with pytest.raises(ConfigurationError, match=r"'exclude_modules' .* leaves at least one linear"):
        named(model, target_modules=["q"], exclude_modules=["query"])
    with pytest.raises(ConfigurationError, match=r"'target_modules' .* a pattern for whole paths .* matches none"):
        named(model, target_modules="query")
    with pytest.raises(ConfigurationError, match=r"'sublayers' .* this model has embedding, self_attention"):
        named(model, target_modules=["q"], sublayers=["cross_attention"])


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"up": nn.Linear(6, 8), "down": nn.Linear(8, 6)}) for _ in range(2)])
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer["down"](layer["up"](x).relu())
        return self.out(x)


def test_an_unknown_architecture_works_by_the_names_of_linears():
    model, x = Unknown(), torch.randn(4, 6)
    base = model(x)
    config = {"kind": "tt_lora", "rank": 2, "target_modules": ["up", "down"], "layers": [1]}
    adapters.attach(model, config)
    assert torch.equal(model(x), base)
    assert set(adapters.summary(model).groups) == {"base weights", "tt_lora"}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
    changed = model(x)
    assert not torch.allclose(changed, base)
    with adapters.merged(model):
        torch.testing.assert_close(model(x), changed)
    one = {"kind": "tt_lora", "rank": 3, "modes": ["in", "layer", "out"], "target_modules": ["up"]}
    assert adapters.summary(adapters.attach(Unknown(), one)).groups.keys() == {
        "base weights",
        "tt_lora, shared across layers, sublayers, projections",
        "tt_lora, shared across sublayers, projections",
    }
    for kind in ("bottleneck", "scale_norm", "bitfit"):
        with pytest.raises(ConfigurationError, match=f"'{kind}' needs to know the sublayers"):
            adapters.attach(Unknown(), {"kind": kind})
    with pytest.raises(ConfigurationError, match="needs to know the sublayers"):
        adapters.attach(Unknown(), {"kind": "tt_lora"})
    with pytest.raises(ConfigurationError, match=r"'layers' .* counts blocks from 0 to 1"):
        adapters.attach(Unknown(), {**config, "layers": [2]})


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_prompts_are_refused_by_name(name):
    with pytest.raises(ConfigurationError, match=r"'prompt' needs an encoder with relative positions"):
        adapters.attach(tiny(name), {"kind": "prompt"})
