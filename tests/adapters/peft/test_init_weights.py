"""``init_weights``: deltas that start at zero, or at random."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import layers, llama, logits

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = {"target_modules": ["q_proj", "up_proj"]}
FIELDS = {
    "a train": {},
    "a ring": {"format": "tensor_ring"},
    "a canonical decomposition": {"format": "cp"},
    "a tensor basis": {"format": "tensor_basis"},
    "shared cores": {"target_modules": ["q_proj", "v_proj"], "shared_cores": [0]},
    "one tensor": {"modes": ["out", "layer", "matrix", "in"], "target_modules": ["q_proj", "v_proj"]},
    "an orthogonal start": {"init": "orthogonal"},
    "a bias": {"delta_bias": "tt"},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_false_gives_every_linear_a_delta_and_true_none(fields, tmp_path):
    for starts_at_zero in (True, False):
        torch.manual_seed(1)
        config = TensorTrainConfig(rank=2, init_weights=starts_at_zero, **(TARGETS | fields))
        model = get_peft_model(llama(), config).eval()
        for layer in layers(model).values():
            assert bool(layer.get_delta_weight("default").any()) != starts_at_zero
        assert torch.equal(logits(model), logits(llama())) == starts_at_zero
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), tmp_path).eval()), logits(model))


def test_the_random_delta_has_the_variance_of_its_initialization():
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(96, 96))
    config = TensorTrainConfig(rank=8, init=0.5, scaling=1.0, init_weights=False, target_modules=["0"], d=2)
    delta = get_peft_model(base, config).base_model.model[0].get_delta_weight("default")
    assert 0.35 < delta.std() < 0.7


@pytest.mark.parametrize("fields", [{"zero_core": 0}, {"init": "principal"}], ids=str)
def test_a_start_at_zero_that_is_asked_for_is_not_random(fields):
    with pytest.raises(ConfigurationError, match=r"Key 'init_weights' of TensorTrainConfig must be true .* got false"):
        TensorTrainConfig(init_weights=False, **fields)
