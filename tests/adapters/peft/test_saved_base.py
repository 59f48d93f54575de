"""Tensors of the base in an adapter's folder: trained biases, and output layers that PEFT saves beside their deltas."""

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

from adapters.peft import TensorTrainConfig
from adapters.saved.folder import CheckpointError
from tests.adapters.peft.test_quantized import METHODS, one_linear
from tests.adapters.peft.tiny import bert, gpt2, llama, logits, primes, scrambled

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Deltas are rounded when they are merged into quantised weights:UserWarning"),
]

CASES = {
    "all biases": (bert, {"bias": "all", "delta_bias": "dense", "target_modules": ["query"]}),
    "biases of targets": (bert, {"bias": "tt_lora_only", "delta_bias": "dense", "target_modules": ["query"]}),
    "new biases": (llama, {"bias": "all", "delta_bias": "dense", "target_modules": ["lm_head", "q_proj"]}),
    "an output layer": (llama, {"target_modules": ["lm_head", "q_proj"]}),
}


def trained(base, seed=0, **fields):
    """A model with random values in all that trains."""
    model = get_peft_model(base, TensorTrainConfig(rank=3, init_weights=False, **fields)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize(("base", "fields"), CASES.values(), ids=CASES)
def test_an_adapter_that_is_merged_is_saved_as_one_that_is_not(base, fields, tmp_path):
    model = trained(base(), **fields)
    unmerged = logits(model)
    model.merge_adapter()
    merged = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(model), merged)  # saving changes nothing
    assert torch.equal(logits(PeftModel.from_pretrained(base(), tmp_path).eval()), unmerged)


@pytest.mark.parametrize("method", METHODS)
def test_a_quantised_base_that_is_merged_has_its_own_biases_saved(method, tmp_path):
    model, _ = one_linear(method, bias="all", delta_bias="dense")
    model.save_pretrained(tmp_path / "unmerged")
    model.merge_adapter()
    model.save_pretrained(tmp_path / "merged")
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("unmerged", "merged"))
    assert one == other


def test_biases_of_linears_that_another_adapter_has_deltas_at_are_loaded(tmp_path):
    model = trained(gpt2(), bias="all", target_modules=["c_attn"])
    before = logits(model)
    model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=["c_proj"]))
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    assert torch.equal(logits(PeftModel.from_pretrained(gpt2(), tmp_path).eval()), before)

    other = get_peft_model(gpt2(), TensorTrainConfig(rank=2, target_modules=["c_fc"]), "second")  # the other way round
    other.load_adapter(tmp_path, "default")
    other.set_adapter("default")
    assert torch.equal(logits(other.eval()), before)


def test_a_bias_without_a_place_is_refused(tmp_path):
    trained(primes(), bias="all", target_modules=["0"]).save_pretrained(tmp_path)
    base = primes()
    base[4].bias = None
    with pytest.raises(CheckpointError, match=r"got a bias at 4, which the model does not have"):
        PeftModel.from_pretrained(base, tmp_path)


@pytest.mark.filterwarnings("ignore:Already following adapters were merged")
def test_values_that_are_loaded_into_a_merged_adapter_act():
    config = TensorTrainConfig(rank=2, target_modules=["q_proj", "up_proj"])
    model = scrambled(get_peft_model(llama(), config)).eval()
    state = {name: tensor / 2 for name, tensor in get_peft_model_state_dict(model).items()}
    snapshot = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = get_peft_model(llama(), config).eval()
    set_peft_model_state_dict(expected, state)
    model.merge_adapter()
    with pytest.warns(UserWarning, match="call merge_adapter again"):
        set_peft_model_state_dict(model, state)
    assert torch.equal(logits(model), logits(expected))
    model.merge_adapter()
    assert torch.allclose(logits(model), logits(expected), atol=1e-5)
    before = logits(model)
    model.load_state_dict(model.state_dict())  # with the merged weights themselves, which stay
    assert torch.equal(logits(model), before)
    model.unmerge_adapter()
    model.load_state_dict(snapshot)
    assert not torch.allclose(logits(model), logits(expected), atol=1e-3)


def test_a_core_that_another_process_holds_is_not_saved_empty(tmp_path):
    model = get_peft_model(llama(), TensorTrainConfig(rank=2, target_modules=["q_proj"]))
    core = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    core.data = torch.empty(0)  # as ZeRO-3 does
    with pytest.raises(CheckpointError, match=r"trainer\.save_model"):
        model.save_pretrained(tmp_path / "adapter")


def test_biases_beside_a_whole_module_are_loaded(tmp_path):
    """Its bias is in the file twice; the second copy has no place of its own."""
    config = {
        "rank": 2,
        "target_modules": ["c_attn"],
        "bias": "all",
        "modules_to_save": ["c_fc"],
        "init_weights": False,
    }
    model = get_peft_model(gpt2(), TensorTrainConfig(**config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.5)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(gpt2(), tmp_path).eval()), logits(model))
    state = {
        key.replace(".c_fc.bias", ".c_fc.modules_to_save.bias"): value
        for key, value in get_peft_model_state_dict(model).items()
    }
    again = get_peft_model(gpt2(), TensorTrainConfig(**config)).eval()
    set_peft_model_state_dict(again, get_peft_model_state_dict(model) | state)
    assert torch.equal(logits(again), logits(model))
