"""Adapters in a factorized model: beside its dense weights they work, beside a factorized one they are refused."""

import peft
import pytest
import torch

import adapters
from tests.adapters.models import batch_for, logits, tiny

CONFIG = {"first_shape": [12, 6], "factors": 3}


@pytest.fixture
def model():
    return adapters.factorize(tiny("llama"), CONFIG)


def test_tt_lora_beside_the_attention(model, trained, tmp_path):
    before = logits(model, "llama")
    adapters.attach(model, {"kind": "tt_lora", "rank": 2, "target_modules": ["q", "v"]})
    assert torch.equal(logits(model, "llama"), before)
    assert not any("cores" in name and "mlp" in name for name, p in model.named_parameters() if p.requires_grad)
    after = logits(trained(model), "llama")
    assert not torch.allclose(after, before)
    adapters.save(model, tmp_path)
    loaded = adapters.load(adapters.factorize(tiny("llama"), CONFIG), tmp_path)
    assert torch.equal(logits(loaded, "llama"), after)
    adapters.merge_and_unload(model).save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(model, "llama"), after)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_lora_of_peft_beside_the_attention(model):
    before = logits(model, "llama")
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    assert torch.equal(logits(tuned, "llama"), before)
    ids = batch_for("llama")["input_ids"]
    tuned(input_ids=ids, labels=ids).loss.backward()
    trained = {name for name, parameter in tuned.named_parameters() if parameter.grad is not None}
    assert trained
    assert all("lora_" in name for name in trained)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", ["q_proj.base_layer", "lora_A.default"])
def test_a_linear_within_an_adapter_of_peft_is_refused_by_name(name, snapshot):
    """Merging into a factorized base would lose the adapter without a word."""
    tuned = peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    before = snapshot(tuned)
    with pytest.raises(adapters.ConfigurationError, match=rf"without adapters; got .*q_proj.*{name[-9:]}"):
        adapters.factorize(tuned, {"target_modules": [name], "format": "low_rank", "rank": 1})
    assert snapshot(tuned) == before


@pytest.mark.parametrize("fields", [{}, {"target_modules": ["mlp.up_proj"]}])
def test_tt_lora_beside_a_factorized_weight_is_refused_by_name(model, fields, snapshot):
    before = snapshot(model)
    with pytest.raises(adapters.ConfigurationError, match=r"FactorizedLinear at model\.layers\.0\.mlp\.(gate|up)_proj"):
        adapters.attach(model, {"kind": "tt_lora", "rank": 2, **fields})
    assert snapshot(model) == before


def test_lora_of_peft_beside_a_factorized_weight_is_refused_by_name(model):
    with pytest.raises(ValueError, match="FactorizedLinear"):
        peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["up_proj"]))
