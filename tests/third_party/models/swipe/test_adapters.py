"""Adapters on swipe models: step 0 is the base, merging changes nothing, and a folder gives the same adapter."""

import copy

import pytest
import torch

import adapters
from tests.third_party.models.swipe.batches import batch, ctc, generator

LABELS = torch.tensor([[2, 3, 3, 7], [4, 4, -100, -100], [6, -100, -100, -100]])
"""Valid for both models."""
KINDS = {
    "tt_lora": {"kind": "tt_lora", "rank": 2},
    "tt_lora everywhere": {"kind": "tt_lora", "rank": 2, "target_modules": "all-linear"},
    "lora": {"kind": "peft:LORA", "r": 2},
    "tt_single": {"kind": "tt_single", "rank": 2},
    "layer_norm": {"kind": "layer_norm"},
    "scale_norm": {"kind": "scale_norm"},
    "tt_layer_norm": {"kind": "tt_layer_norm", "rank": 2},
    "bitfit": {"kind": "bitfit"},
    "intrinsic_said": {"kind": "intrinsic_said", "dim": 50},
    "lm_head": {"kind": "lm_head"},
    "bottleneck": {"kind": "bottleneck", "reduction_factor": 4},
    "low_rank": {"kind": "low_rank", "reduction_factor": 4, "rank": 2},
    "tt_adapter": {"kind": "tt_adapter", "rank": 2},
    "phm": {"kind": "phm", "reduction_factor": 4, "n": 2},
    "compacter": {"kind": "compacter", "reduction_factor": 4, "n": 2},
    "none": {"kind": "none"},
}
NOT_LINEAR = ("bottleneck", "low_rank", "tt_adapter", "phm", "compacter")
MODELS = {
    "ctc": ctc,
    "conformer": lambda dtype: ctc(dtype, encoder="conformer"),
    "encoder-decoder": generator,
}


def logits(model):
    with torch.no_grad():
        return model(**batch(torch.float64), labels=LABELS).logits


def disturbed(model):
    """The model after its trainable parameters have moved."""
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_on_a_model(tmp_path, name, kind):
    """Norm kinds start from norms of one value, which those of T5 are, so that step 0 is the base for each."""
    model = MODELS[name](torch.float64)
    base, original = copy.deepcopy(model), logits(model)
    adapters.attach(model, KINDS[kind])
    assert torch.equal(logits(model), original)

    model(**batch(torch.float64), labels=LABELS).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() for p in model.parameters() if p.requires_grad)
    changed = logits(disturbed(model))
    assert not torch.allclose(changed, original, atol=1e-6)
    if kind not in NOT_LINEAR:
        with adapters.merged(model):
            torch.testing.assert_close(logits(model), changed)
        assert torch.equal(logits(model), changed)
    adapters.save(model, tmp_path)
    adapters.load(base, tmp_path)
    assert torch.equal(logits(base), changed)


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_is_read_before_the_trace(name):
    model = MODELS[name](torch.float64)
    original = logits(model)
    adapters.attach(model, {"kind": "prompt", "num_tokens": 3, "init": "random"})
    found = logits(model)
    assert found.shape == original.shape
    assert not torch.allclose(found, original)


def test_a_prompt_of_a_vocabulary_needs_one():
    with pytest.raises(adapters.ConfigurationError, match="'init'.*vocabulary.*random"):
        adapters.attach(ctc(), {"kind": "prompt"})


def test_tasks_share_a_base_and_switch():
    model = ctc(torch.float64)
    original = logits(model)
    adapters.attach(model, KINDS["tt_lora"], task="dvorak")
    adapters.attach(model, KINDS["tt_lora"], task="azerty")
    disturbed(model)
    found = {}
    for task in ("dvorak", "azerty"):
        adapters.set_active_task(model, task)
        found[task] = logits(model)
    assert not torch.allclose(found["dvorak"], found["azerty"])
    assert not torch.allclose(found["dvorak"], original)
    adapters.set_active_task(model, None)
    assert torch.equal(logits(model), original)


def test_an_adapted_model_generates_as_its_merged_one():
    model, inputs = disturbed(adapters.attach(generator(torch.float64), KINDS["tt_lora"])), batch(torch.float64)
    words = model.generate(**inputs, num_beams=2, max_new_tokens=5)
    with adapters.merged(model):
        assert torch.equal(model.generate(**inputs, num_beams=2, max_new_tokens=5), words)
