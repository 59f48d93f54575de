"""The sample of base weights in the tuner's folders: another base is noticed, the same one in any dtype is not."""

import logging

import pytest
import torch
from peft import PeftModel, get_peft_model

from adapters.peft import TensorTrainConfig
from adapters.peft.base_weights import FILE
from tests.adapters.peft.tiny import gpt2, llama

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = {llama: ["q_proj"], gpt2: ["c_attn"]}


def saved(build, folder, **fields):
    get_peft_model(build(), TensorTrainConfig(rank=2, target_modules=TARGETS[build], **fields)).save_pretrained(folder)
    return folder


def other(build):
    """The same architecture with other weights in one linear."""
    model = build()
    name = next(name for name, _ in model.named_parameters() if TARGETS[build][0] in name and name.endswith("weight"))
    model.get_parameter(name).data.mul_(1.1)
    return model


def warnings_of(model, folder, caplog, **arguments):
    caplog.clear()
    with caplog.at_level(logging.WARNING, "adapters"):
        PeftModel.from_pretrained(model, folder, **arguments)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("build", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("arguments", [{}, {"is_trainable": True}, {"low_cpu_mem_usage": True}])
def test_the_same_base_in_any_dtype_is_no_warning_and_another_is(build, dtype, arguments, tmp_path, caplog):
    folder = saved(build, tmp_path)
    assert warnings_of(build().to(dtype), folder, caplog, **arguments) == []
    (warning,) = warnings_of(other(build).to(dtype), folder, caplog, **arguments)
    assert "got a base with other weights" in warning


def test_a_second_adapter_beside_a_merged_one_is_compared_with_the_base(tmp_path, caplog):
    folder = saved(llama, tmp_path)
    model = get_peft_model(llama(), TensorTrainConfig(rank=2, target_modules=["q_proj"], init="he"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    model.merge_adapter()
    with caplog.at_level(logging.WARNING, "adapters"), pytest.warns(UserWarning, match="Unmerging the model first"):
        model.load_adapter(folder, "second")
    assert caplog.records == []


def test_a_configuration_of_two_bases_saves_none_and_an_older_folder_is_silent(tmp_path, caplog):
    config = TensorTrainConfig(rank=2, scaling=1.0, target_modules=["q_proj"])
    first = get_peft_model(llama(), config)
    first.save_pretrained(tmp_path)
    assert (tmp_path / FILE).is_file()
    get_peft_model(other(llama), config)
    first.save_pretrained(tmp_path)
    assert not (tmp_path / FILE).exists()
    assert warnings_of(other(llama), tmp_path, caplog) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"tensors": 2}'])
def test_a_damaged_sample_is_no_error(text, tmp_path, caplog):
    folder = saved(llama, tmp_path)
    (folder / FILE).write_text(text)
    warnings_of(llama(), folder, caplog)
