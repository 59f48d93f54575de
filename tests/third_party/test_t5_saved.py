"""A T5 with adapters, saved whole: what is in the file, who can read it, and what is refused."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import GPT2Config, GPT2LMHeadModel, UMT5Config, UMT5ForConditionalGeneration
from transformers import T5ForConditionalGeneration as TransformersT5

import adapters
from tests.third_party import t5_models, tiny
from third_party.models.t5 import T5Config, T5ForConditionalGeneration


@pytest.mark.parametrize("form", ["gated", "mt5"])
def test_head_of_its_own_is_kept(bases, form, tmp_path):
    model = tiny.adapted_model(bases[form])
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    assert model.config.scale_decoder_outputs is False
    before = t5_models.logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(t5_models.logits(T5ForConditionalGeneration.from_pretrained(tmp_path)), before)


@pytest.mark.parametrize("kind", t5_models.EVERY_KIND)
def test_saved_model_carries_its_adapters(bases, tmp_path, kind):
    model = tiny.adapted_model(bases["gated"], t5_models.EVERY_KIND[kind])
    tiny.randomize(model)
    before = t5_models.logits(model)
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.save_pretrained(tmp_path)

    reloaded, info = T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(t5_models.logits(reloaded), before)
    assert {name: parameter.requires_grad for name, parameter in reloaded.named_parameters()} == trains
    assert adapters.attachments(reloaded) == adapters.attachments(model)
    written = json.loads((tmp_path / "config.json").read_text())["adapters"]
    configs = [attachment.config for attachment in adapters.attachments(model)]
    assert [adapters.AdapterConfig.from_dict(entry["config"]) for entry in written] == configs


def test_shared_core_has_one_owner_in_the_file(bases, tmp_path):
    model = tiny.adapted_model(bases["relu"], t5_models.EVERY_KIND["tt_lora shared"])
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert len([name for name in names if name.startswith("shared_parameters.")]) == 4  # cores 0 and 2 of wi and of wo
    assert not [name for name in names if name.endswith(("cores.0", "cores.2"))]
    assert len([name for name in names if name.endswith("cores.1")]) == 8  # two linears in each of four blocks


def test_merged_model_is_refused_and_saved_unmerged_has_the_weights_of_the_base(bases, tmp_path):
    model = tiny.adapted_model(bases["relu"], [tiny.LORA, {"kind": "tt_layer_norm"}])
    tiny.randomize(model)
    before = t5_models.logits(model)
    with adapters.merged(model), pytest.raises(adapters.ConfigurationError, match=r"adapters\.merge_and_unload\("):
        model.save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    model.save_pretrained(tmp_path)
    assert torch.equal(t5_models.logits(T5ForConditionalGeneration.from_pretrained(tmp_path)), before)
    with (
        safe_open(tmp_path / "model.safetensors", "pt") as saved,
        safe_open(bases["relu"] / "model.safetensors", "pt") as base,
    ):
        assert [name for name in base.keys() if not torch.equal(saved.get_tensor(name), base.get_tensor(name))] == []  # noqa: SIM118


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
    with pytest.raises(OSError, match=f"model_type is t5 or mt5; got '{model_type}': name a checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("lost", ["shared.weight", "encoder.block.1.layer.0.SelfAttention.q.weight"])
def test_checkpoint_without_a_base_weight_is_refused(bases, tmp_path, lost):
    model = tiny.base_model("relu")
    state = model.state_dict()
    kept = {name: tensor for name, tensor in state.items() if tensor.data_ptr() != state[lost].data_ptr()}
    model.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(OSError, match=r"every tensor of the base model; .* lacks \d+, first"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)


def test_nothing_is_unpickled(tmp_path):
    model = tiny.base_model("relu")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)


def test_reloaded_model_reports_what_trains_now(bases, tmp_path):
    model = tiny.adapted_model(bases["relu"], t5_models.EVERY_KIND["tt_lora shared"])
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
    assert torch.equal(t5_models.logits(both), t5_models.logits(model))


def test_plain_transformers_reads_the_base_of_a_saved_model(bases, tmp_path):
    model = tiny.adapted_model(bases["gated"], t5_models.NOTHING_CHANGES_AT_FIRST["tt_lora shared"])
    tiny.randomize(model)
    model.save_pretrained(tmp_path)
    base = TransformersT5.from_pretrained(bases["gated"])
    assert not torch.equal(t5_models.logits(model), t5_models.logits(base))
    assert torch.equal(t5_models.logits(TransformersT5.from_pretrained(tmp_path)), t5_models.logits(base))
