"""Every method of PEFT as a kind: starts as the base, trains, merges and unmerges exactly, saves and loads.

PEFT runs as it is, so what is held here is what the library adds: places, freezing, counting, exact merging, files, and
that each refusal is a sentence. The oracle for LoRA is the formula in float64.
"""

import copy
import json

import pytest
import torch
import transformers
from peft import PeftType

import adapters
from adapters.kinds.of_peft.layers import PeftAdapter
from adapters.kinds.of_peft.types import UNSUPPORTED_TYPES
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

OPTIONS = {
    "BEFT": {},
    "BOFT": {},
    "C3A": {"block_size": 8},
    "DEFT": {"r": 4},
    "DELORA": {"r": 4},
    "FOURIERFT": {"n_frequency": 50},
    "GLORA": {"r": 4},
    "GRALORA": {"r": 4, "gralora_k": 2},
    "HIRA": {"r": 4},
    "HRA": {"r": 4},
    "IA3": {},
    "LILY": {"r": 4},
    "LN_TUNING": {},
    "LOHA": {"r": 4},
    "LOKR": {"r": 4},
    "LORA": {"r": 4, "lora_alpha": 6},
    "MISS": {"r": 8},
    "OFT": {"oft_block_size": 8},
    "OSF": {},
    "PEANUT": {"r": 4, "depth": 2},
    "PSOFT": {"r": 4},
    "PVERA": {"r": 16},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "SUPERTUNING": {},
    "TINYLORA": {},
    "UNILORA": {},
    "VBLORA": {"vector_length": 8, "num_vectors": 8},
    "VERA": {"r": 16},
    "WAVEFT": {"n_frequency": 50},
}
"""Every type that can be a kind, with options that fit linears of 24 and 48 features."""

NEAR_THE_BASE = {"UNILORA": 0.01, "VBLORA": 0.05}
"""Types whose delta PEFT starts at small random numbers, and how far the logits may be."""

NOT_MERGEABLE = {"BEFT": "Base layer has no bias", "LILY": "not supported for Lily"}
"""Types that have no dense weight, with PEFT's reason."""

every_type = pytest.mark.parametrize("name", [name for name in OPTIONS if name in PeftType.__members__])


def kind(name, **fields):
    return {"kind": f"peft:{name}", **OPTIONS[name], **fields}


@pytest.fixture
def base(tiny_t5):
    """A function that builds the smallest base, the same each time."""
    return lambda **fields: tiny_t5(num_layers=1, num_decoder_layers=1, **fields)


def t5_base(**fields):
    with torch.device("meta"):
        return T5ForConditionalGeneration(
            T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, vocab_size=32100, **fields)
        )


def test_every_type_of_the_installed_peft_is_supported_or_has_a_reason_why_not():
    assert set(PeftType.__members__) <= OPTIONS.keys() | UNSUPPORTED_TYPES.keys()
    assert not OPTIONS.keys() & UNSUPPORTED_TYPES.keys()


@pytest.mark.parametrize("name", UNSUPPORTED_TYPES)
def test_unsupported_type_raises_with_an_alternative(name):
    with pytest.raises(adapters.ConfigurationError, match=rf"'peft:{name}', which .*(use|attach) "):
        adapters.AdapterConfig.from_dict({"kind": f"peft:{name}"})


@every_type
def test_starts_at_the_base_trains_only_the_adapter_and_has_a_gradient(name, base, batch, logits):
    plain = base()
    names = {name for name, _ in plain.named_parameters()}
    model = adapters.attach(base(), kind(name))
    start = logits(model)
    torch.testing.assert_close(start, logits(plain), rtol=0, atol=NEAR_THE_BASE.get(name, 1e-5))

    trainable = {path: p for path, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert not trainable.keys() & names
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    model.train()
    model(**batch).loss.backward()
    moving = [p for p in trainable.values() if p.grad is not None and p.grad.any()]
    assert moving
    with torch.no_grad():
        for parameter in moving:
            parameter -= 0.5 * parameter.grad / parameter.grad.norm()
    assert not torch.allclose(logits(model.eval()), start, rtol=0, atol=1e-4)
    assert all(torch.equal(dict(model.named_parameters())[path], p) for path, p in plain.named_parameters())


@every_type
def test_merges_and_unmerges_exactly_or_says_why_not_and_loads_with_any_random_state(
    name, base, logits, trained, tmp_path
):
    torch.manual_seed(4)
    model = trained(adapters.attach(base(), kind(name)), std=0.1)
    expected, before = logits(model), {path: t.clone() for path, t in model.state_dict().items()}
    if name in NOT_MERGEABLE:
        assert f"peft:{name}" in adapters.unmergeable(model)
        assert adapters.summary(model).cannot_be_merged == [f"peft:{name}"]
        with pytest.raises(adapters.MergeError, match=f"cannot be merged by PEFT .*{NOT_MERGEABLE[name]}"):
            adapters.merge(model)
    else:
        assert adapters.unmergeable(model) is None
        for _ in range(3):
            with adapters.merged(model):
                torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
                assert not torch.allclose(logits(model), logits(base()), rtol=0, atol=1e-3)
                assert all(torch.equal(before[path], t) for path, t in model.state_dict().items())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[path], tensor) for path, tensor in model.state_dict().items())
    assert torch.equal(logits(model), expected)

    adapters.save(model, tmp_path)
    torch.manual_seed(6)
    loaded = adapters.load(base(), tmp_path)
    assert torch.equal(logits(loaded), expected)
    assert adapters.attachments(loaded) == adapters.attachments(model)
    assert not set(adapters.adapter_state_dict(model)) & set(base().state_dict())


@pytest.mark.parametrize("name", ["VERA", "PVERA", "RANDLORA", "TINYLORA"])
def test_unsaved_projections_are_drawn_again_from_their_seed(name, base, logits, trained, tmp_path):
    small, whole = tmp_path / "small", tmp_path / "whole"
    model = trained(adapters.attach(base(), kind(name, save_projection=False)))
    adapters.save(model, small)
    adapters.save(adapters.attach(base(), kind(name, save_projection=True)), whole)
    torch.manual_seed(7)
    assert torch.equal(logits(adapters.load(base(), small)), logits(model))
    sizes = [(folder / "adapter_model.safetensors").stat().st_size for folder in (small, whole)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("name", ["LORA", "IA3", "OFT", "VERA"])
def test_bfloat16_base_has_float32_adapters_and_unmerges_bit_for_bit(name, base, logits, trained):
    model = adapters.attach(base().bfloat16(), kind(name))
    assert torch.equal(logits(model), logits(base().bfloat16()))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    expected = logits(trained(model, std=0.1))
    before = {path: t.clone() for path, t in model.state_dict().items()}
    for _ in range(5):
        with adapters.merged(model):
            torch.testing.assert_close(logits(model), expected, rtol=0.05, atol=0.1)
    assert all(torch.equal(before[path], tensor) for path, tensor in model.state_dict().items())


def test_adapters_keep_no_copy_of_the_base_weights(base):
    model = adapters.attach(base(), kind("LORA"))
    layers = [m.layer for m in model.modules() if isinstance(m, PeftAdapter)]
    assert [layer.base_layer.weight for layer in layers] == [None] * len(layers) != []


def test_lora_is_its_formula(base, trained):
    model = trained(adapters.attach(base(), kind("LORA", target_modules=["q"], stacks=["encoder"])))
    linear = model.encoder.block[0].layer[0].SelfAttention.q
    layer = linear.around["peft:LORA"].active.layer
    a, b = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
    dense = linear.weight.double() + 6 / 4 * b @ a  # (out, in) + (out, r) x (r, in)
    x = torch.randn(2, 3, 24)
    torch.testing.assert_close(linear(x).double(), x.double() @ dense.T, rtol=1e-5, atol=1e-5)
    with adapters.merged(model):
        torch.testing.assert_close(linear.weight.double(), dense, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"kind": "peft:LORA", "r": 8}, 24 * 2 * 8 * (768 + 3072)),
        ({"kind": "peft:LORA", "r": 4, "target_modules": ["q", "v"]}, 36 * 2 * 4 * (768 + 768)),
        ({"kind": "peft:LORA", "r": 8, "stacks": ["decoder"], "layers": [0, 3]}, 2 * 2 * 8 * (768 + 3072)),
        ({"kind": "peft:LOKR", "r": 8, "decompose_factor": 16}, 24 * 2 * (16 * 16 + 8 * (48 + 192))),
        ({"kind": "peft:IA3"}, 36 * 2 * 768 + 24 * 3072),
        ({"kind": "peft:LN_TUNING"}, 62 * 768),
        ({"kind": "peft:VERA", "r": 256}, 24 * 2 * 256 + 24 * (768 + 3072)),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_trainable_parameters_of_t5_base_match_the_closed_form(config, count):
    summary = adapters.summary(adapters.attach(t5_base(), config))
    assert summary.total.trainable == count
    assert summary.groups[config["kind"]].trainable == count
    assert summary.base.parameters == 222_882_048


def places(model):
    return {
        path
        for path, module in adapters.adapted_modules(model)
        if any(name.startswith(("around", "replacement")) for name, _ in module.named_controllers())
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"encoder.1.wi", "encoder.1.wo", "decoder.2.wi", "decoder.2.wo"}),
        ({"stacks": ["encoder"]}, {"encoder.1.wi", "encoder.1.wo"}),
        ({"target_modules": ["SelfAttention.q"]}, {"encoder.0.q", "decoder.0.q"}),
        ({"target_modules": r"decoder\..*\.wo"}, {"decoder.2.wo"}),
        ({"target_modules": "all-linear", "exclude_modules": ["wi", "wo"], "stacks": ["decoder"]},
         {f"decoder.{number}.{name}" for number in (0, 1) for name in "qkvo"}),
    ],
)  # fmt: skip
def test_target_modules_follow_peft_within_stacks_and_layers(base, fields, expected):
    model = adapters.attach(base(), kind("LORA", **fields))
    short = {".".join([parts[0], parts[4], parts[-1]]) for parts in (path.split(".") for path in places(model))}
    assert short == expected


def test_gated_feed_forward_has_both_inner_linears(base):
    model = adapters.attach(base(feed_forward_proj="gated-gelu"), kind("LORA", stacks=["encoder"]))
    assert {path.rpartition(".")[2] for path in places(model)} == {"wi_0", "wi_1", "wo"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "peft:lora"}, "did you mean 'LORA'"),
        ({"kind": "pft:LORA"}, "Key 'kind' of an adapter must name an adapter kind; got 'pft:LORA'"),
        ({"kind": "peft:LORA", "rank": 8}, "got 'rank': known are .*lora_alpha"),
        ({"kind": "peft:LORA", "lora_alhpa": 8}, "did you mean 'lora_alpha'"),
        ({"kind": "peft:LORA", "r": "eight"}, "Key 'r' of adapter kind 'peft:LORA'.*valid integer"),
        ({"kind": "peft:LORA", "r": 0}, "'peft:LORA' takes values .* PEFT raises: .*`r` should be a positive"),
        ({"kind": "peft:LORA", "task_type": "SEQ_2_SEQ_LM"}, "Key 'task_type' .* is set by this library"),
        ({"kind": "peft:LORA", "modules_to_save": ["shared"]}, "Key 'modules_to_save' .*leave it out"),
        ({"kind": "peft:LORA", "bias": "all"}, "Key 'bias' .* use the kind bitfit"),
        ({"kind": "peft:LORA", "eva_config": {}}, "Key 'eva_config' .* takes an object of PEFT"),
        ({"kind": "peft:LORA", "init_lora_weights": "pissa"}, "'init_lora_weights' .* leaves the base model's weights"),
        ({"kind": "peft:LORA", "target_modules": ["wi", "woo"]}, "names modules .*'woo': did you mean 'wo'"),
        ({"kind": "peft:LORA", "target_modules": []}, "'target_modules' .* takes at least one name; .* an empty list"),
        ({"kind": "peft:LORA", "target_modules": "wi"}, "a pattern for whole paths .*'wi', which matches none"),
        ({"kind": "peft:LORA", "target_modules": "*wi"}, "regular expression .*nothing to repeat"),
        ({"kind": "peft:LORA", "layers": [9]}, "Key 'layers' .* counts blocks"),
        ({"kind": "peft:OFT", "oft_block_size": 0}, "'peft:OFT' .* for which PEFT raises: "),
        ({"kind": "peft:SHIRA", "r": 100}, "PEFT raises: The set rank 100"),
        ([{"kind": "tt_lora"}, {"kind": "peft:LORA"}, {"kind": "peft:IA3", "target_modules": ["wo"]}],
         "Key 'kind' of adapter kind 'peft:IA3' gives each linear one adapter around it; got .*wo, which has "),
        ([{"kind": "peft:LN_TUNING"}, {"kind": "scale_norm"}], "'scale_norm' gives each layer norm one replacement"),
        ([{"kind": "peft:LN_TUNING"}, {"kind": "layer_norm"}], "trains norms that are in use"),
    ],
)  # fmt: skip
def test_invalid_configuration_raises_one_sentence_and_leaves_the_model_unchanged(base, snapshot, config, message):
    model = base()
    before = snapshot(model)
    with pytest.raises(adapters.ConfigurationError, match=message) as error:
        adapters.attach(model, config)
    assert "\n" not in str(error.value)
    assert snapshot(model) == before


def test_without_peft_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("adapters.kinds.of_peft.types.find_spec", lambda name: None)
    with pytest.raises(adapters.ConfigurationError, match="pip install peft"):
        adapters.AdapterConfig.from_dict({"kind": "peft:LORA"})


def test_configuration_round_trips_through_json():
    config = adapters.AdapterConfig.from_dict(kind("LORA", stacks=["decoder"], layers=[0], rank_pattern={"wo": 2}))
    values = json.loads(json.dumps(config.to_dict()))
    assert values == {"kind": "peft:LORA", "stacks": ["decoder"], "layers": [0], "r": 4, "lora_alpha": 6,
                      "rank_pattern": {"wo": 2}}  # fmt: skip
    assert adapters.AdapterConfig.from_dict(values) == config


COMPOSITIONS = {
    "layer_norm": {"kind": "layer_norm"},
    "tt_lora on the same linears": {"kind": "tt_lora", "rank": 2},
    "tt_single after them": {"kind": "tt_single", "rank": 2},
    "another method elsewhere": {"kind": "peft:LOKR", "r": 4, "target_modules": ["q"]},
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_composes_with_other_kinds_in_either_order(base, logits, trained, tmp_path, other, order):
    model = adapters.attach(base(), [kind("LORA"), other][::order])
    torch.testing.assert_close(logits(model), logits(base()), rtol=0, atol=1e-5)
    expected = logits(trained(model, std=0.1))
    with adapters.merged(model):
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    adapters.save(model, tmp_path)
    assert torch.equal(logits(adapters.load(base(), tmp_path)), expected)
    groups = adapters.summary(model).groups
    assert groups["peft:LORA"].trainable == 2 * 2 * 4 * (24 + 48)


def test_each_task_can_have_its_own_adapter(base, logits, trained):
    model = base()
    for task in ("rte", "cola"):
        adapters.attach(model, kind("LORA"), task)
    trained(model)
    outputs = {}
    for task in ("rte", "cola"):
        adapters.set_active_task(model, task)
        outputs[task] = logits(model)
        with adapters.merged(model):
            torch.testing.assert_close(logits(model), outputs[task], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outputs["rte"], outputs["cola"])


def test_train_unmerges_and_a_copy_is_independent(base, logits, trained):
    model = trained(adapters.attach(base(), kind("VERA")))
    expected = logits(model)
    adapters.merge(model)
    twin = copy.deepcopy(model)
    model.train()
    assert not adapters.is_merged(model)
    adapters.unmerge(twin)
    assert torch.equal(logits(twin), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(logits(model.eval()), expected)


def test_parameters_frozen_by_peft_stay_frozen_and_do_not_count_as_trainable(base):
    model = adapters.attach(base(), kind("LORA", target_modules=["wi"], stacks=["encoder"]))
    adapter = model.encoder.block[0].layer[1].DenseReluDense.wi.around["peft:LORA"].active
    frozen = adapter.layer.lora_A["default"].weight
    adapter.frozen.append(frozen)
    report = adapters.freeze(model)
    assert not frozen.requires_grad
    assert {row.reason for row in report.rows if ".lora_A." in row.name} == {"frozen by the method of PEFT"}
    assert adapters.summary(model).groups["peft:LORA"].trainable == 48 * 4


def test_base_parameters_keep_the_names_of_transformers(base, logits):
    model = adapters.attach(base(), kind("LORA"))
    logits(model)
    own = base(ours=False).state_dict().keys()
    assert isinstance(base(ours=False), transformers.T5ForConditionalGeneration)
    assert own <= model.state_dict().keys()
    assert model.state_dict().keys() - own == adapters.adapter_state_dict(model).keys()
    assert all(".around.peft:LORA." in name for name in adapters.adapter_state_dict(model))
