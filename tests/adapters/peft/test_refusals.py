"""Errors of the tuner leave the model whole: never half merged, and no adapter saved without its tensors."""

import pytest
import torch
from peft import get_peft_model, get_peft_model_state_dict, inject_adapter_in_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters import ConfigurationError, MergeError, TensorTrainDelta
from adapters.peft import TensorTrainConfig, TensorTrainPeftLinear
from tests.adapters.peft.tiny import adapted, layers, llama, logits

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
@pytest.mark.parametrize("diverged", [0, -1], ids=["the first linear", "the last linear"])
def test_safe_merge_that_fails_at_one_linear_leaves_all_of_them_unchanged(merge, diverged):
    model = adapted(llama())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layer = list(layers(model).values())[diverged]
    layer.tt_lora_delta["default"].linear.cores[1].data[0] = float("nan")
    with pytest.raises(MergeError, match=r"finite.*\['default'\]"):
        getattr(model, merge)(safe_merge=True)
    assert not any(layer.merged for layer in layers(model).values())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items() if ".tt_lora_delta." not in n)


PARTS_OF_PATHS = ["linear", "cores", "q_proj", "0", "v_proj", "gate_proj", "weight", "lm_head"]
PARTS_OF_PEFT = [
    "base_model",
    "model",
    "base_layer",
    "tt_lora_delta",
    "modules_to_save",
    "shared_by_deltas",
    "__base__",
]


@pytest.mark.parametrize("name", [*PARTS_OF_PATHS, *PARTS_OF_PEFT, "third.v2", "__base__"])
def test_adapter_name_that_is_part_of_a_path_raises(name):
    model = adapted(llama(), target_modules=["q_proj"])
    model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=["v_proj"]))
    saved = get_peft_model_state_dict(model).keys()
    with pytest.raises(ConfigurationError, match=f"part of a path.*got '{name}'"):
        model.add_adapter(name, TensorTrainConfig(rank=2, target_modules=["k_proj"]))
    assert list(model.peft_config) == ["default", "second"]
    assert get_peft_model_state_dict(model).keys() == saved != set()


def test_state_dict_with_shared_cores_is_injected_by_target_modules():
    config = {"modes": ["in", "layer", "matrix", "out"], "rank": 2, "target_modules": ["q_proj", "v_proj"]}
    saved = get_peft_model(llama(), TensorTrainConfig(**config))
    keys = {key.removeprefix("base_model.model."): t for key, t in get_peft_model_state_dict(saved).items()}
    model = inject_adapter_in_model(TensorTrainConfig(**config), llama(), state_dict=keys)
    assert layers(model).keys() == {path.removeprefix("base_model.model.") for path in layers(saved)}
    assert torch.equal(logits(model), logits(llama()))


def test_conv1d_and_delta_are_one_contraction(monkeypatch):
    torch.manual_seed(0)
    layer = TensorTrainPeftLinear(Conv1D(8, 12), "default", TensorTrainConfig(rank=2))
    nn.init.normal_(layer.tt_lora_delta["default"].linear.cores[-1])
    onto, fused = TensorTrainDelta.onto, []
    monkeypatch.setattr(TensorTrainDelta, "onto", lambda self, *given: fused.append(self) or onto(self, *given))
    x = torch.randn(5, 12)
    together = layer(x)
    assert len(fused) == 1
    torch.testing.assert_close(together, layer.base_layer(x) + layer.tt_lora_delta["default"](x))
