"""The T5 that carries adapters, against transformers' own T5 and mT5 of the same checkpoint."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MT5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)
from transformers import T5Config as TransformersT5Config
from transformers import T5ForConditionalGeneration as TransformersT5

import adapters
from adapters import ConfigurationError
from tests.third_party import tiny
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

ALL_SUBLAYERS = ["self_attention", "cross_attention", "feed_forward"]

NOTHING_CHANGES_AT_FIRST = {
    "tt_lora": {"kind": "tt_lora", "rank": 2},
    "tt_lora everywhere": {
        "kind": "tt_lora",
        "target_modules": ["q", "k", "v", "o", "wo"],
        "rank": [2, 3],
        "bias": "dense",
    },
    "tt_lora shared": {"kind": "tt_lora", "rank": 2, "shared_cores": [0, 2], "frozen_cores": [0]},
    "tt_lora half": {"kind": "tt_lora", "d": 2, "disabled_cores": [0], "layers": [1], "bias": "tt"},
    "tt_lora non-linear": {"kind": "tt_lora", "rank": 2, "core_activation": "gelu"},
    "tt_adapter": {"kind": "tt_adapter", "reduction_factor": 2, "rank": 2, "sublayers": ALL_SUBLAYERS},
    "tt_adapter shared": {"kind": "tt_adapter", "expansion_factor": 2, "rank": 2, "shared_cores": [1]},
    "tt_single": {"kind": "tt_single", "rank": 3, "sublayers": ALL_SUBLAYERS, "bias": "dense"},
    "bottleneck": tiny.BOTTLENECK,
    "layer_norm": {"kind": "layer_norm"},
    "bitfit": {"kind": "bitfit"},
    "intrinsic_said": {"kind": "intrinsic_said", "dim": 100},
    "lm_head": {"kind": "lm_head"},
    "none": {"kind": "none"},
    "composed": [{"kind": "tt_lora"}, {"kind": "tt_lora", "rank": 1}, tiny.BOTTLENECK, {"kind": "layer_norm"}],
}
NORMS_CHANGE = {
    "scale_norm": {"kind": "scale_norm"},
    "tt_layer_norm": {"kind": "tt_layer_norm", "rank": 1},
    "tt_layer_norm shared": {"kind": "tt_layer_norm", "init": "ones", "shared_cores": [0], "d": 2},
}
EVERY_KIND = {**NOTHING_CHANGES_AT_FIRST, **NORMS_CHANGE}
NOT_LINEAR = ("tt_lora non-linear", "tt_adapter", "tt_adapter shared", "bottleneck", "composed")
MERGEABLE = [name for name in EVERY_KIND if name not in NOT_LINEAR]

torch.manual_seed(0)
BATCH = {"input_ids": torch.randint(2, 60, (3, 7)), "labels": torch.randint(2, 60, (3, 5))}


@torch.no_grad()
def logits(model):
    return model.eval()(**BATCH).logits


def by_hand(base, adapter):
    """The third way to a model with adapters: a configuration that has them, and a checkpoint that has not."""
    config = T5Config.from_pretrained(base)
    config.adapters = adapter
    torch.manual_seed(1)
    return T5ForConditionalGeneration.from_pretrained(base, config=config)


WAYS = {"argument": tiny.adapted_model, "configuration": by_hand}


@pytest.fixture
def nan_memory():
    """Memory that nobody has written is NaN, so a parameter that is never started cannot look right by chance."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", NOTHING_CHANGES_AT_FIRST)
@pytest.mark.parametrize("form", ["relu", "gated"])
def test_adapted_model_starts_as_the_base_model(bases, form, kind, way):
    base = TransformersT5.from_pretrained(bases[form])
    model = WAYS[way](bases[form], EVERY_KIND[kind])
    assert len(list(model.parameters())) >= len(list(base.parameters()))
    assert [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()] == []
    assert torch.equal(logits(model), logits(base))


@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ({"kind": "scale_norm"}, lambda w: w.mean().expand_as(w)),
        ({"kind": "tt_layer_norm", "init": "ones"}, torch.ones_like),
        ({"kind": "tt_layer_norm", "rank": 8}, lambda w: w),  # full rank: the TT-SVD is exact
    ],
    ids=["scale_norm", "ones", "pretrained"],
)
def test_replaced_norms_start_from_the_pretrained_weights(bases, kind, weight, way):
    base = TransformersT5.from_pretrained(bases["relu"])
    for name, parameter in base.named_parameters():
        if "layer_norm" in name:
            parameter.data = weight(parameter.data).clone()
    torch.testing.assert_close(logits(WAYS[way](bases["relu"], kind)), logits(base), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_mt5_checkpoint_gives_mt5_logits(bases, way):
    assert json.loads((bases["mt5"] / "config.json").read_text())["model_type"] == "mt5"
    base = MT5ForConditionalGeneration.from_pretrained(bases["mt5"])
    assert torch.equal(logits(WAYS[way](bases["mt5"], tiny.LORA)), logits(base))


@pytest.mark.parametrize("form", ["gated", "mt5"])
def test_head_of_its_own_is_kept(bases, form, tmp_path):
    model = tiny.adapted_model(bases[form])
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    assert model.config.scale_decoder_outputs is False
    before = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(T5ForConditionalGeneration.from_pretrained(tmp_path)), before)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_both_ways_train_the_same_parameters(bases, kind):
    trains = []
    for way in WAYS.values():
        model = way(bases["gated"], EVERY_KIND[kind])
        trains.append({name: parameter.requires_grad for name, parameter in model.named_parameters()})
    assert trains[0] == trains[1]
    assert any(trains[0].values())
    brought = ("tasks", "shared_parameters")
    base = {name: trains for name, trains in trains[0].items() if not any(part in name for part in brought)}
    assert any(base.values()) == (kind in ("layer_norm", "lm_head", "none", "composed"))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_saved_model_carries_its_adapters(bases, tmp_path, kind):
    model = tiny.adapted_model(bases["gated"], EVERY_KIND[kind])
    tiny.randomize(model)
    before = logits(model)
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.save_pretrained(tmp_path)

    reloaded, info = T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(logits(reloaded), before)
    assert {name: parameter.requires_grad for name, parameter in reloaded.named_parameters()} == trains
    assert adapters.attachments(reloaded) == adapters.attachments(model)
    written = json.loads((tmp_path / "config.json").read_text())["adapters"]
    assert [adapters.AdapterConfig.from_dict(entry["config"]) for entry in written] == adapters.as_configs(
        EVERY_KIND[kind]
    )


def test_shared_core_has_one_owner_in_the_file(bases, tmp_path):
    model = tiny.adapted_model(bases["relu"], EVERY_KIND["tt_lora shared"])
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert len([name for name in names if name.startswith("shared_parameters.")]) == 4  # cores 0 and 2 of wi and of wo
    assert not [name for name in names if name.endswith(("cores.0", "cores.2"))]
    assert len([name for name in names if name.endswith("cores.1")]) == 8  # two linears in each of four blocks


def two_tasks(base):
    """One adapter for everybody, and one for each of two tasks."""
    model = tiny.adapted_model(base, {"kind": "layer_norm"})
    for task, rank in (("rte", 2), ("cola", 2), (None, 1)):
        adapters.attach(model, {"kind": "tt_lora", "rank": rank}, task=task)
    tiny.randomize(model)
    return model


def test_active_task_decides_which_adapters_act(bases, tmp_path):
    model = two_tasks(bases["relu"])
    expected = {}
    for task in ("rte", "cola", None):
        model.set_active_task(task)
        expected[task] = logits(model)
    assert not torch.equal(expected["rte"], expected["cola"])
    assert not torch.equal(expected["rte"], expected[None])

    model.save_pretrained(tmp_path)
    reloaded = T5ForConditionalGeneration.from_pretrained(tmp_path)
    for task, before in expected.items():
        reloaded.set_active_task(task)
        assert torch.equal(logits(reloaded), before)


def test_unknown_task_is_refused_and_the_active_one_stays(bases):
    model = T5ForConditionalGeneration.from_pretrained(bases["relu"])
    adapters.attach(model, tiny.LORA, task="rte")
    tiny.randomize(model)
    model.set_active_task("rte")
    before = logits(model)
    with pytest.raises(ConfigurationError, match="given was 'rtee': did you mean 'rte'"):
        model.set_active_task("rtee")
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("kind", MERGEABLE)
def test_merged_logits_are_the_unmerged(bases, kind):
    model = tiny.adapted_model(bases["gated"], EVERY_KIND[kind])
    tiny.randomize(model, 0.1)
    unmerged = logits(model)
    with adapters.merged(model):
        merged = logits(model)
    assert float((merged - unmerged).abs().max() / unmerged.abs().max()) < 1e-5
    assert torch.equal(logits(model), unmerged)


def test_model_saved_while_merged_is_unmerged(bases, tmp_path):
    model = tiny.adapted_model(bases["relu"], [tiny.LORA, {"kind": "tt_layer_norm"}])
    tiny.randomize(model)
    before = logits(model)
    with adapters.merged(model):
        model.save_pretrained(tmp_path)
    assert torch.equal(logits(T5ForConditionalGeneration.from_pretrained(tmp_path)), before)
    with (
        safe_open(tmp_path / "model.safetensors", "pt") as saved,
        safe_open(bases["relu"] / "model.safetensors", "pt") as base,
    ):
        assert [name for name in base.keys() if not torch.equal(saved.get_tensor(name), base.get_tensor(name))] == []  # noqa: SIM118


def greedy(model, length):
    """Greedy decoding by whole forwards, without generate and without its cache."""
    ids = torch.zeros(len(BATCH["input_ids"]), 1, dtype=torch.long)
    for _ in range(length):
        with torch.no_grad():
            step = model(input_ids=BATCH["input_ids"], decoder_input_ids=ids).logits[:, -1]
        ids = torch.cat([ids, step.argmax(-1, keepdim=True)], dim=1)
    return ids


def until_end(ids):
    """Rows cut behind the first end-of-text, without padding."""
    return [row[: row.index(1) + 1] if 1 in row else row for row in ids.tolist()]


@pytest.mark.parametrize("task", ["rte", "cola", None])
def test_generate_follows_the_active_task(bases, task):
    model = two_tasks(bases["relu"]).eval()
    model.set_active_task(task)
    generated = model.generate(input_ids=BATCH["input_ids"], max_new_tokens=8, do_sample=False)
    assert until_end(generated) == until_end(greedy(model, 8))
    with pytest.raises(ValueError, match="task"):
        model.generate(input_ids=BATCH["input_ids"], max_new_tokens=2, task=task or "rte")


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_merged_and_unmerged(bases, beams):
    model = two_tasks(bases["relu"]).eval()
    texts = {}
    for task in ("rte", "cola"):
        model.set_active_task(task)
        ask = {"input_ids": BATCH["input_ids"], "max_new_tokens": 8, "num_beams": beams, "do_sample": False}
        texts[task] = model.generate(**ask)
        with adapters.merged(model):
            assert torch.equal(model.generate(**ask), texts[task])
    assert texts["rte"].tolist() != texts["cola"].tolist()


def test_bfloat16_base_keeps_float32_adapters(bases, tmp_path):
    base = TransformersT5.from_pretrained(bases["gated"], dtype=torch.bfloat16)
    model = T5ForConditionalGeneration.from_pretrained(bases["gated"], dtype=torch.bfloat16, adapters=tiny.LORA)
    assert {p.dtype for n, p in model.named_parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.equal(logits(model), logits(base))
    tiny.randomize(model)
    before = logits(model)
    model.save_pretrained(tmp_path)
    reloaded = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in reloaded.parameters() if p.requires_grad} == {torch.float32}
    assert torch.equal(logits(reloaded), before)


def test_float16_base_keeps_wo_in_float32(bases):
    base = TransformersT5.from_pretrained(bases["relu"], dtype=torch.float16)
    model = T5ForConditionalGeneration.from_pretrained(bases["relu"], dtype=torch.float16, adapters=tiny.LORA)
    feed_forward = model.encoder.block[0].layer[-1].DenseReluDense
    assert feed_forward.wo.weight.dtype == torch.float32
    assert feed_forward.wi.weight.dtype == torch.float16
    assert torch.equal(logits(model), logits(base))


REFUSED = {
    "unknown kind": ({"kind": "tt_loar"}, "tt_lora"),
    "unknown key": ({"kind": "tt_lora", "rnak": 2}, "rank"),
    "wrong type": ({"kind": "tt_lora", "rank": "8"}, "'rank'"),
    "no such layer": ({"kind": "tt_lora", "layers": [2]}, "'layers'"),
    "no such linear": ({"kind": "tt_lora", "target_modules": ["wi_0"]}, "'target_modules'"),
    "shape does not factor": ({"kind": "tt_lora", "raw_shape": [[4, 4], [4, 4]]}, "'raw_shape'"),
    "second norm": ([{"kind": "scale_norm"}, {"kind": "tt_layer_norm"}], "one replacement"),
    "twice the same": ([tiny.LORA, tiny.LORA], "attached once"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("adapter", "words"), REFUSED.values(), ids=list(REFUSED))
def test_wrong_adapters_are_refused(bases, adapter, words, way):
    with pytest.raises(ConfigurationError, match=words):
        WAYS[way](bases["relu"], adapter)


@pytest.mark.parametrize("adapter", [{"kind": "tt_loar"}, [tiny.LORA, {"kind": "tt_lora", "rank": 0}]])
def test_configuration_refuses_what_is_no_adapter(adapter):
    with pytest.raises(ConfigurationError):
        T5Config(**tiny.SIZES, adapters=adapter)


def test_checkpoint_with_part_of_an_adapter_is_refused(bases, tmp_path):
    model = tiny.adapted_model(bases["relu"])
    model.save_pretrained(tmp_path)
    state = model.state_dict()
    lost = next(name for name in state if name.endswith("cores.1"))
    del state[lost]
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(OSError, match=f"lacks '{lost}'"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)


OTHER_ARCHITECTURES = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2)),
    "umt5": (UMT5ForConditionalGeneration, UMT5Config(**tiny.SIZES)),
}


@pytest.mark.parametrize("load", [T5ForConditionalGeneration.from_pretrained, T5Config.from_pretrained])
@pytest.mark.parametrize("model_type", OTHER_ARCHITECTURES)
def test_another_architecture_is_refused(tmp_path, model_type, load):
    model_class, config = OTHER_ARCHITECTURES[model_type]
    model_class(config).save_pretrained(tmp_path)
    with pytest.raises(OSError, match=f"model_type is t5 or mt5; given was '{model_type}': name a checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("lost", ["shared.weight", "encoder.block.1.layer.0.SelfAttention.q.weight"])
def test_checkpoint_without_a_base_weight_is_refused(bases, tmp_path, lost):
    model = tiny.base_model("relu")
    state = model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if tensor.data_ptr() != state[lost].data_ptr()}
    model.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(OSError, match=r"every tensor of the base model; .* lacks \d+, the first"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)


def test_nothing_is_unpickled(tmp_path):
    model = tiny.base_model("relu")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)


def test_reloaded_model_reports_what_trains_now(bases, tmp_path):
    model = tiny.adapted_model(bases["relu"], EVERY_KIND["tt_lora shared"])
    model.save_pretrained(tmp_path)
    reloaded = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert adapters.freezing_report(reloaded) == adapters.freezing_report(model)
    trains = {name for name, parameter in reloaded.named_parameters() if parameter.requires_grad}
    assert set(adapters.freezing_report(reloaded).trainable_names()) == trains


def test_adapters_come_on_top_of_those_in_the_checkpoint(bases, tmp_path):
    model = tiny.adapted_model(bases["relu"])
    tiny.randomize(model)
    model.save_pretrained(tmp_path)
    both = tiny.adapted_model(tmp_path, tiny.BOTTLENECK)
    assert [attachment.config.kind for attachment in adapters.attachments(both)] == ["tt_lora", "bottleneck"]
    assert torch.equal(logits(both), logits(model))


def test_plain_transformers_reads_the_base_of_a_saved_model(bases, tmp_path):
    model = tiny.adapted_model(bases["gated"], NOTHING_CHANGES_AT_FIRST["tt_lora shared"])
    tiny.randomize(model)
    model.save_pretrained(tmp_path)
    base = TransformersT5.from_pretrained(bases["gated"])
    assert not torch.equal(logits(model), logits(base))
    assert torch.equal(logits(TransformersT5.from_pretrained(tmp_path)), logits(base))


def test_configuration_of_transformers_is_taken_too(bases):
    config = TransformersT5Config.from_pretrained(bases["relu"])
    model = T5ForConditionalGeneration.from_pretrained(bases["relu"], config=config, adapters=tiny.LORA)
    assert torch.equal(logits(model), logits(TransformersT5.from_pretrained(bases["relu"])))
    assert model.encoder.block[0].layer[-1].DenseReluDense.wi.beside


def test_model_without_adapters_is_transformers_own(bases):
    model = T5ForConditionalGeneration.from_pretrained(bases["relu"])
    assert model.config.adapters is None
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(logits(model), logits(TransformersT5.from_pretrained(bases["relu"])))
