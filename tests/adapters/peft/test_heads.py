"""Heads that PEFT adds to ``modules_to_save`` after it has made the model; and one configuration for two models."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import BertConfig, BertForQuestionAnswering, BertForTokenClassification

from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import TOKENS, layers, llama, primes

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
HEADS = {
    "TOKEN_CLS": (BertForTokenClassification, "classifier"),
    "QUESTION_ANS": (BertForQuestionAnswering, "qa_outputs"),
}


@pytest.mark.parametrize("task", HEADS)
def test_the_head_trains_and_is_saved(task, tmp_path):
    build, head = HEADS[task]
    torch.manual_seed(0)
    base = build(BertConfig(**SIZES)).eval()
    state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = get_peft_model(base, TensorTrainConfig(rank=2, task_type=task, target_modules=["query"])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    assert any(head in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    model.save_pretrained(tmp_path)
    assert head in json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"]
    again = build(BertConfig(**SIZES)).eval()
    again.load_state_dict(state)
    again = PeftModel.from_pretrained(again, tmp_path).eval()
    for one, other in zip(model(TOKENS).to_tuple(), again(TOKENS).to_tuple(), strict=True):
        assert torch.equal(one, other)


def test_one_configuration_has_the_numbers_of_its_first_model_and_is_copied_for_others():
    config = TensorTrainConfig(rank=2, target_modules="all-linear")
    first = get_peft_model(llama(), config)
    assert first.peft_config["default"] is config
    numbers = config.scaling, config.scaling_pattern
    second = get_peft_model(primes(), config)
    assert (config.scaling, config.scaling_pattern) == numbers
    alone = get_peft_model(primes(), TensorTrainConfig(rank=2, target_modules="all-linear"))
    for name in ("scaling", "scaling_pattern"):
        assert getattr(second.peft_config["default"], name) == getattr(alone.peft_config["default"], name)
    assert second.peft_config["default"].scaling != config.scaling
    scalings = [[layer.tt_lora_delta["default"].scaling for layer in layers(m).values()] for m in (second, alone)]
    assert scalings[0] == scalings[1]


@pytest.mark.parametrize("scaling", ["auto", 2.0])
def test_one_configuration_for_two_adapters_of_a_model(scaling):
    config = TensorTrainConfig(rank=2, scaling=scaling, target_modules=["0", "2"])
    model = get_peft_model(primes(), config)
    model.add_adapter("other", config)
    assert all(set(layer.tt_lora_delta) == {"default", "other"} for layer in layers(model).values())


def test_a_scaling_that_is_set_after_the_first_model_is_kept():
    config = TensorTrainConfig(rank=2, target_modules="all-linear")
    get_peft_model(llama(), config)
    config.scaling, config.scaling_pattern = 0.25, None
    second = get_peft_model(primes(), config)
    assert {layer.tt_lora_delta["default"].scaling for layer in layers(second).values()} == {0.25}


def test_layers_name_their_sizes():
    model = get_peft_model(primes(), TensorTrainConfig(rank=2, target_modules=["0", "2"]))
    assert [(layer.in_features, layer.out_features) for layer in layers(model).values()] == [(31, 37), (37, 31)]
