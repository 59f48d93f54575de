"""Folders of the tuner: adapter tensors only, equal bytes, and every function of PEFT and transformers that loads."""

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, PeftModel, TaskType
from safetensors.torch import load_file
from torch import nn
from transformers import T5ForConditionalGeneration

from tests.adapters.peft.tiny import adapted, layers, logits, t5, trainable

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def by_peft(base: Path, folder: Path) -> nn.Module:
    return PeftModel.from_pretrained(T5ForConditionalGeneration.from_pretrained(base), folder)


def by_peft_without_memory(base: Path, folder: Path) -> nn.Module:
    return PeftModel.from_pretrained(T5ForConditionalGeneration.from_pretrained(base), folder, low_cpu_mem_usage=True)


def by_auto_class(base: Path, folder: Path) -> nn.Module:
    return AutoPeftModelForSeq2SeqLM.from_pretrained(folder)


def by_transformers(base: Path, folder: Path) -> nn.Module:
    model = T5ForConditionalGeneration.from_pretrained(base)
    info = model.load_adapter(folder)
    assert info.missing_keys == info.unexpected_keys == info.mismatched_keys == set()
    return model


class TestFiles:
    def test_folder_has_the_configuration_and_adapter_tensors_only(self, tmp_path):
        model = adapted(target_modules={"wi", "wo", "q"}, delta_bias="dense")
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        assert {key.replace(".tt_lora_delta.", ".tt_lora_delta.default.") for key in tensors} == trainable(model)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "TT_LORA"

    def test_saving_twice_writes_the_same_bytes(self, tmp_path):
        for folder, names in (("a", ["wi", "wo", "q", "k"]), ("b", ["k", "q", "wo", "wi"])):
            adapted(target_modules=set(names)).save_pretrained(tmp_path / folder)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    @pytest.mark.parametrize(
        ("load", "dtype"),
        [
            (by_peft, torch.bfloat16),
            (by_peft_without_memory, torch.float32),
            (by_auto_class, torch.float32),
            (by_transformers, torch.bfloat16),
        ],
    )
    def test_every_loader_gives_identical_logits(self, load, dtype, tmp_path):
        t5().to(dtype).save_pretrained(tmp_path / "base")
        base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
        model = adapted(base, task_type=TaskType.SEQ_2_SEQ_LM, delta_bias="tt", frozen_cores=[0])
        model.save_pretrained(tmp_path / "adapter")
        loaded = load(tmp_path / "base", tmp_path / "adapter").eval()
        assert torch.equal(logits(loaded), logits(model))
        assert trainable(loaded) == set()
        for layer, same in zip(layers(loaded).values(), layers(model).values(), strict=True):
            for tensor, other in zip(layer.tt_lora_delta.parameters(), same.tt_lora_delta.parameters(), strict=True):
                assert tensor.dtype == torch.float32
                assert torch.equal(tensor, other)

    def test_a_loaded_adapter_is_trainable_on_request(self, tmp_path):
        model = adapted(frozen_cores=[1])
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(t5(), tmp_path, is_trainable=True)
        assert trainable(loaded) == trainable(model) != set()

    def test_the_name_of_the_adapter_is_not_in_the_file(self, tmp_path):
        model = adapted()
        model.save_pretrained(tmp_path)
        other = PeftModel.from_pretrained(t5(), tmp_path, adapter_name="other").eval()
        assert torch.equal(logits(other), logits(model))
        other.save_pretrained(tmp_path)
        again = load_file(tmp_path / "other" / "adapter_model.safetensors")
        assert again.keys() == load_file(tmp_path / "adapter_model.safetensors").keys()
