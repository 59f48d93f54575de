"""``bias`` as in PEFT: biases of the base that train too; and ``delta_bias``, which earlier versions called so."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict

import adapters
from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import adapted, bert, layers, logits, scrambled, trainable

TARGETS = {"target_modules": ["query", "value"]}
SHARED = {"d": 3, "shared_cores": [0, 1, 2], "raw_shape": [[4, 2, 2], [2, 2, 4]]}

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def of_base(names):
    """Names without those of deltas and of LoRA."""
    return {name for name in names if "lora_" not in name}


@pytest.mark.parametrize(("bias", "of_lora"), [("none", "none"), ("all", "all"), ("tt_lora_only", "lora_only")])
@pytest.mark.parametrize("fields", [{}, SHARED], ids=["own cores", "shared cores"])
def test_the_biases_that_train_and_are_saved_are_those_of_lora(bias, of_lora, fields):
    model = get_peft_model(bert(), TensorTrainConfig(rank=2, bias=bias, **TARGETS, **fields))
    lora = get_peft_model(bert(), LoraConfig(r=2, bias=of_lora, **TARGETS))
    assert of_base(trainable(model)) == of_base(trainable(lora))
    assert of_base(get_peft_model_state_dict(model)) == of_base(get_peft_model_state_dict(lora))


@pytest.mark.parametrize("bias", ["all", "tt_lora_only"])
def test_trained_biases_are_saved_and_merged(bias, tmp_path):
    model = adapted(bert(), bias=bias, delta_bias="dense", **TARGETS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and name.endswith("base_layer.bias"):
                parameter.normal_()
    trained = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(bert(), tmp_path).eval()), trained)
    torch.testing.assert_close(logits(model.merge_and_unload()), trained, rtol=1e-5, atol=1e-5)


def test_the_biases_of_linears_with_a_fused_delta_get_the_gradients_of_the_plain_ones():
    model = adapted(bert(), bias="all", delta_bias="dense", **TARGETS)
    layer = next(iter(layers(model).values()))
    x = torch.randn(3, 16)
    (layer(x) * torch.arange(16.0)).sum().backward()
    assert torch.equal(layer.base_layer.bias.grad, 3 * torch.arange(16.0))  # d sum_rows(g y) / d b


def test_an_adapter_beside_one_with_shared_cores_and_biases():
    model = get_peft_model(bert(), TensorTrainConfig(rank=2, bias="tt_lora_only", **TARGETS, **SHARED))
    biases = {name for name in trainable(model) if name.endswith("base_layer.bias")}
    model.add_adapter("second", TensorTrainConfig(rank=2, **TARGETS))
    assert biases == {name for name in trainable(model) if name.endswith("base_layer.bias")}
    assert len(biases) == 4


def test_a_second_adapter_with_biases_is_refused_by_peft():
    model = get_peft_model(bert(), TensorTrainConfig(rank=2, bias="all", **TARGETS))
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        model.add_adapter("second", TensorTrainConfig(rank=2, bias="all", **TARGETS))


def test_a_disabled_adapter_with_biases_is_warned_of():
    model = get_peft_model(bert(), TensorTrainConfig(rank=2, bias="all", **TARGETS))
    with pytest.warns(UserWarning, match="bias configured to be 'all'"), model.disable_adapter():
        pass


@pytest.mark.parametrize("form", ["dense", "tt"])
def test_folders_with_the_earlier_name_are_read_exactly_and_with_a_word(form, tmp_path):
    model = adapted(bert(), delta_bias=form, **TARGETS)
    model.save_pretrained(tmp_path)
    before, deltas = logits(model), adapters.Deltas.read(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    config["bias"] = config.pop("delta_bias")
    path.write_text(json.dumps(config))
    with pytest.warns(FutureWarning, match=rf"'delta_bias'; got '{form}' .* write delta_bias='{form}'"):
        again = PeftModel.from_pretrained(bert(), tmp_path).eval()
    assert torch.equal(logits(again), before)
    assert again.peft_config["default"].bias == "none"
    earlier = adapters.Deltas.read(tmp_path)
    assert len(earlier.biases) == len(deltas.biases) == 4
    assert all(torch.equal(earlier.biases[at], deltas.biases[at]) for at in deltas.biases)


def test_code_with_the_earlier_name_is_read_too_unless_it_contradicts_itself():
    with pytest.warns(FutureWarning, match="write delta_bias='dense'") as caught:
        config = TensorTrainConfig(bias="dense")
    assert (config.bias, config.delta_bias) == ("none", "dense")
    assert caught[0].filename == __file__
    with pytest.raises(ConfigurationError, match=r"Key 'bias' .* got 'dense'"):
        TensorTrainConfig(bias="dense", delta_bias="tt")


def test_a_sum_of_folders_with_trained_biases_is_refused(tmp_path):
    scrambled(get_peft_model(bert(), TensorTrainConfig(rank=2, bias="all", **TARGETS))).save_pretrained(tmp_path)
    with pytest.raises(adapters.CheckpointError, match=r"bias.*save the adapter without the other modules"):
        adapters.Deltas.read(tmp_path)
