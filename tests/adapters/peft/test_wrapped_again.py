"""A base that is wrapped again under the same name, as by a notebook cell that runs twice."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import layers, llama, logits, scrambled, trainable

pytestmark = [
    # PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]
SECOND_TIME = "for a second time"
FIRST = {
    "own cores": {"target_modules": ["q_proj", "up_proj"], "delta_bias": "dense"},
    "shared cores": {"target_modules": ["q_proj", "v_proj"], "shared_cores": [0]},
    "a whole module": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


def first(**fields):
    """A base with a trained "default", and the PeftModel."""
    base = llama()
    model = scrambled(get_peft_model(base, TensorTrainConfig(rank=2, **fields)).eval())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(1.0)
    assert not torch.equal(logits(model), logits(llama()))
    return base, model


def wrapped(model, **fields):
    with pytest.warns(UserWarning, match=SECOND_TIME):
        return get_peft_model(model, TensorTrainConfig(rank=3, target_modules=["v_proj"], **fields)).eval()


@pytest.mark.parametrize("what", ["base", "PeftModel"])
@pytest.mark.parametrize("merged", [False, True], ids=["apart", "merged"])
@pytest.mark.parametrize("fields", FIRST.values(), ids=FIRST)
def test_the_new_adapter_takes_the_place_of_the_earlier_one(what, merged, fields, tmp_path):
    base, earlier = first(**fields)
    if merged:
        earlier.merge_adapter()
    model = wrapped(base if what == "base" else earlier)
    fresh = get_peft_model(llama(), TensorTrainConfig(rank=3, target_modules=["v_proj"])).eval()
    assert torch.equal(logits(model), logits(llama()))  # nothing of the earlier one acts
    assert trainable(model) == trainable(fresh)
    assert list(model.peft_config) == ["default"]
    assert model.get_base_model() is base
    scrambled(model)
    scrambled(fresh)
    assert torch.equal(logits(model), logits(fresh))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), tmp_path).eval()), logits(model))
    assert torch.equal(logits(model.unload()), logits(llama()))


def test_the_same_configuration_again_starts_anew():
    base, _ = first(**FIRST["own cores"])
    with pytest.warns(UserWarning, match=SECOND_TIME):
        model = get_peft_model(base, TensorTrainConfig(rank=2, **FIRST["own cores"])).eval()
    assert len(layers(model)) == 4
    assert torch.equal(logits(model), logits(llama()))


def test_other_adapters_stay():
    base, earlier = first(target_modules=["q_proj"])
    earlier.add_adapter("other", TensorTrainConfig(rank=2, target_modules=["q_proj", "o_proj"]))
    scrambled(earlier, "other", seed=5)
    earlier.set_adapter("other")
    alone = logits(earlier)
    model = wrapped(base)
    assert set(model.peft_config) == {"default", "other"}
    assert model.active_adapters == ["default"]
    assert torch.equal(logits(model), logits(llama()))
    model.set_adapter("other")
    assert torch.equal(logits(model), alone)


def test_a_refused_configuration_leaves_the_earlier_adapter():
    base, earlier = first(**FIRST["own cores"])
    before = logits(earlier)
    with (
        pytest.warns(UserWarning, match=SECOND_TIME),
        pytest.raises(ConfigurationError, match="did you mean 'v_proj'"),
    ):
        get_peft_model(base, TensorTrainConfig(rank=2, target_modules=["v_prj"]))
    assert torch.equal(logits(earlier), before)


def test_another_name_of_a_part_of_the_model_is_refused_still():
    base, _ = first(**FIRST["own cores"])
    with (
        pytest.warns(UserWarning, match=SECOND_TIME),
        pytest.raises(ConfigurationError, match="no part of a path in the model"),
    ):
        get_peft_model(base, TensorTrainConfig(rank=2, target_modules=["q_proj"]), adapter_name="up_proj")


def test_whole_modules_act_and_train_again(tmp_path):
    base, earlier = first(**FIRST["a whole module"])
    earlier.save_pretrained(tmp_path)
    saved = logits(earlier)
    again = wrapped(base, modules_to_save=["lm_head"])
    fresh = get_peft_model(llama(), TensorTrainConfig(rank=3, target_modules=["v_proj"], modules_to_save=["lm_head"]))
    assert trainable(again) == trainable(fresh)
    assert torch.equal(logits(again), logits(llama()))
    without = wrapped(again)
    assert torch.equal(logits(without), logits(llama()))
    loaded = PeftModel.from_pretrained(without, tmp_path).eval()
    assert torch.equal(logits(loaded), saved)
    assert torch.equal(logits(loaded.merge_and_unload()), logits(earlier.merge_and_unload()))


def test_a_refused_configuration_leaves_that_of_the_earlier_adapter(tmp_path):
    _, earlier = first(**FIRST["own cores"])
    before = logits(earlier)
    with pytest.warns(UserWarning, match=SECOND_TIME), pytest.raises(ConfigurationError, match="did you mean 'v_proj'"):
        get_peft_model(earlier, TensorTrainConfig(rank=2, target_modules=["v_prj"]))
    earlier.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), tmp_path).eval()), before)
    earlier.add_adapter("other", TensorTrainConfig(rank=2, target_modules=["v_proj"]))
    assert list(earlier.peft_config) == ["default", "other"]
