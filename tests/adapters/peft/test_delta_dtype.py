"""delta_dtype: deltas in float32 by default, or in the dtype of the base, trained, saved and loaded."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft import tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # of PEFT's own


def dtypes(model):
    return {parameter.dtype for name, parameter in model.named_parameters() if "tt_lora" in name}


@pytest.mark.parametrize(("delta_dtype", "expected"), [("float32", torch.float32), ("base", torch.bfloat16)])
def test_dtype_of_deltas_is_kept_on_disk(delta_dtype, expected, tmp_path):
    config = TensorTrainConfig(rank=2, shared_cores=[0], delta_dtype=delta_dtype)
    model = tiny.scrambled(get_peft_model(tiny.gpt2().bfloat16(), config)).eval()
    assert dtypes(model) == {expected}
    tiny.called(model).float().sum().backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {expected}
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.gpt2().bfloat16(), tmp_path).eval()
    assert dtypes(loaded) == {expected}
    assert torch.equal(tiny.logits(loaded), tiny.logits(model))


def test_deltas_in_the_dtype_of_the_base_are_those_of_float32_rounded():
    base, wide = (
        tiny.scrambled(get_peft_model(tiny.gpt2().bfloat16(), TensorTrainConfig(rank=2, delta_dtype=dtype)))
        for dtype in ("base", "float32")
    )
    for path, layer in tiny.layers(base).items():
        exact = tiny.layers(wide)[path].get_delta_weight("default")
        found = layer.get_delta_weight("default").float()
        assert (found - exact).norm() < 2**-6 * exact.norm()  # three cores, each rounded to 8 bits, and their products


def test_adapter_that_is_added_has_its_own_dtype():
    model = get_peft_model(tiny.gpt2().bfloat16(), TensorTrainConfig(rank=2))
    model.add_adapter("second", TensorTrainConfig(rank=2, delta_dtype="base"))
    for layer in tiny.layers(model).values():
        assert {p.dtype for p in layer.tt_lora_delta["default"].parameters()} == {torch.float32}
        assert {p.dtype for p in layer.tt_lora_delta["second"].parameters()} == {torch.bfloat16}


def test_other_dtypes_are_refused():
    with pytest.raises(ConfigurationError, match=r"'delta_dtype'.*got 'bfloat16'"):
        TensorTrainConfig(delta_dtype="bfloat16")


def test_the_dtype_is_that_of_the_base_where_the_first_module_has_a_delta():
    base = torch.nn.Sequential(torch.nn.Linear(6, 4)).to(torch.bfloat16)
    model = get_peft_model(base, TensorTrainConfig(rank=2, target_modules=["0"], delta_dtype="base"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
