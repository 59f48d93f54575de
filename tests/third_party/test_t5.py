"""The T5 that carries adapters, against transformers' own T5 and mT5 of the same checkpoint."""

import json

import pytest
import torch
from transformers import MT5ForConditionalGeneration
from transformers import T5Config as TransformersT5Config
from transformers import T5ForConditionalGeneration as TransformersT5

from adapters import ConfigurationError
from tests.third_party import t5_models, tiny
from third_party.models.t5 import T5Config, T5ForConditionalGeneration


@pytest.fixture
def nan_memory():
    """Memory that nobody has written is NaN, so a parameter that is never started cannot look right by chance."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize(("form", "way"), [*(("relu", way) for way in t5_models.LOADERS), ("gated", "argument")])
@pytest.mark.parametrize("kind", t5_models.NOTHING_CHANGES_AT_FIRST)
def test_adapted_model_starts_as_the_base_model(bases, form, kind, way):
    base = TransformersT5.from_pretrained(bases[form])
    model = t5_models.LOADERS[way](bases[form], t5_models.EVERY_KIND[kind])
    assert len(list(model.parameters())) >= len(list(base.parameters()))
    assert [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()] == []
    assert torch.equal(t5_models.logits(model), t5_models.logits(base))


@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize("way", t5_models.LOADERS)
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
    torch.testing.assert_close(
        t5_models.logits(t5_models.LOADERS[way](bases["relu"], kind)), t5_models.logits(base), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("way", t5_models.LOADERS)
def test_mt5_checkpoint_gives_mt5_logits(bases, way):
    assert json.loads((bases["mt5"] / "config.json").read_text())["model_type"] == "mt5"
    base = MT5ForConditionalGeneration.from_pretrained(bases["mt5"])
    assert torch.equal(t5_models.logits(t5_models.LOADERS[way](bases["mt5"], tiny.LORA)), t5_models.logits(base))


@pytest.mark.parametrize("kind", t5_models.EVERY_KIND)
def test_both_ways_train_the_same_parameters(bases, kind):
    trains = []
    for way in t5_models.LOADERS.values():
        model = way(bases["gated"], t5_models.EVERY_KIND[kind])
        trains.append({name: parameter.requires_grad for name, parameter in model.named_parameters()})
    assert trains[0] == trains[1]
    assert any(trains[0].values())
    brought = ("tasks", "shared_parameters")
    base = {name: trains for name, trains in trains[0].items() if not any(part in name for part in brought)}
    assert any(base.values()) == (kind in ("layer_norm", "lm_head", "none", "composed"))


def test_bfloat16_base_keeps_float32_adapters(bases, tmp_path):
    base = TransformersT5.from_pretrained(bases["gated"], dtype=torch.bfloat16)
    model = T5ForConditionalGeneration.from_pretrained(bases["gated"], dtype=torch.bfloat16, adapters=tiny.LORA)
    assert {p.dtype for n, p in model.named_parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.equal(t5_models.logits(model), t5_models.logits(base))
    tiny.randomize(model)
    before = t5_models.logits(model)
    model.save_pretrained(tmp_path)
    reloaded = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in reloaded.parameters() if p.requires_grad} == {torch.float32}
    assert torch.equal(t5_models.logits(reloaded), before)


def test_float16_base_keeps_wo_in_float32(bases):
    base = TransformersT5.from_pretrained(bases["relu"], dtype=torch.float16)
    model = T5ForConditionalGeneration.from_pretrained(bases["relu"], dtype=torch.float16, adapters=tiny.LORA)
    feed_forward = model.encoder.block[0].layer[-1].DenseReluDense
    assert feed_forward.wo.weight.dtype == torch.float32
    assert feed_forward.wi.weight.dtype == torch.float16
    assert torch.equal(t5_models.logits(model), t5_models.logits(base))


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


@pytest.mark.parametrize("way", t5_models.LOADERS)
@pytest.mark.parametrize(("adapter", "words"), REFUSED.values(), ids=list(REFUSED))
def test_wrong_adapters_are_refused(bases, adapter, words, way):
    with pytest.raises(ConfigurationError, match=words):
        t5_models.LOADERS[way](bases["relu"], adapter)


@pytest.mark.parametrize("adapter", [{"kind": "tt_loar"}, [tiny.LORA, {"kind": "tt_lora", "rank": 0}]])
def test_configuration_refuses_what_is_no_adapter(adapter):
    with pytest.raises(ConfigurationError):
        T5Config(**tiny.SIZES, adapters=adapter)


def test_configuration_of_transformers_is_taken_too(bases):
    config = TransformersT5Config.from_pretrained(bases["relu"])
    model = T5ForConditionalGeneration.from_pretrained(bases["relu"], config=config, adapters=tiny.LORA)
    assert torch.equal(t5_models.logits(model), t5_models.logits(TransformersT5.from_pretrained(bases["relu"])))
    assert model.encoder.block[0].layer[-1].DenseReluDense.wi.beside


def test_model_without_adapters_is_transformers_own(bases):
    model = T5ForConditionalGeneration.from_pretrained(bases["relu"])
    assert model.config.adapters is None
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(t5_models.logits(model), t5_models.logits(TransformersT5.from_pretrained(bases["relu"])))
