"""Factorized models in folders of transformers: saved, loaded without dense weights, used like any other model."""

import json

import peft
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

import adapters
from adapters.factorized.layers import factorized_modules
from tests.adapters.models import batch_for, logits, tiny

CONFIGS = {
    "kronecker": {"first_shape": [12, 6], "factors": 3, "scalars": True},
    "tensor_train": {"format": "tensor_train", "rank": 4, "d": 3, "frozen_cores": [0]},
    "tensor_ring": {"format": "tensor_ring", "rank": 2, "d": 2},
    "low_rank": {"format": "low_rank", "rank": 5, "target_modules": "all-linear"},
}


@pytest.fixture(params=["gpt2", "llama"])
def name(request):
    return request.param


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_folder_gives_the_same_model(name, config, tmp_path):
    model = adapters.factorize(tiny(name), config)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, name), logits(model, name))
    assert {n: p.requires_grad for n, p in loaded.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    loaded.save_pretrained(tmp_path / "again")
    files = [(folder / "config.json").read_text() for folder in (tmp_path, tmp_path / "again")]
    assert files[0] == files[1]
    assert json.loads(files[0])["quantization_config"]["quant_method"] == "factorized"


def test_no_dense_weight_is_allocated(name, tmp_path):
    inner = {"gpt2": "n_inner", "llama": "intermediate_size"}[name]
    model = tiny(name, **{inner: 84})  # 24 x 84 entries are those of no other tensor
    with AllocatedSizes() as seen:
        model.state_dict()
        torch.empty(24, 84)
    assert 24 * 84 in seen.sizes
    adapters.factorize(model, CONFIGS["kronecker"]).save_pretrained(tmp_path)
    with AllocatedSizes() as seen:
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert factorized_modules(loaded)
    assert seen.sizes
    assert 24 * 84 not in seen.sizes


class AllocatedSizes(torch.overrides.TorchFunctionMode):
    """The sizes of all tensors off the meta device that functions of torch return."""

    def __init__(self):
        super().__init__()
        self.sizes = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result.is_meta:
            self.sizes.add(result.numel())
        return result


def test_a_loaded_model_is_an_ordinary_one(name, tmp_path):
    adapters.factorize(tiny(name), CONFIGS["kronecker"]).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = batch_for(name)["input_ids"]
    assert loaded.generate(ids, max_new_tokens=3, do_sample=False).shape == (2, 10)
    assert not getattr(loaded, "is_quantized", False)
    assert not hasattr(loaded, "hf_quantizer")
    loaded.half().float()
    loaded(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in loaded.parameters() if p.requires_grad)


def test_half_precision(name, tmp_path):
    model = adapters.factorize(tiny(name), CONFIGS["kronecker"])
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    full = logits(model, name)
    assert (logits(loaded, name).float() - full).abs().max() < 0.05 * full.abs().max()
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.float32


@pytest.mark.parametrize("cls", [AutoModel, AutoModelForSequenceClassification])
def test_a_model_with_another_head_or_none(name, cls, tmp_path):
    model = adapters.factorize(tiny(name), CONFIGS["kronecker"])
    model.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path)
    assert len(factorized_modules(loaded)) == len(factorized_modules(model))
    body = {key.removeprefix(f"{model.base_model_prefix}.") for key in model.base_model.state_dict()}
    assert body <= {key.removeprefix(f"{model.base_model_prefix}.") for key in loaded.state_dict()}
    for key, tensor in model.base_model.state_dict().items():
        assert torch.equal(loaded.base_model.state_dict()[key], tensor), key


def test_densify_writes_a_plain_folder(name, tmp_path):
    model = adapters.factorize(tiny(name), CONFIGS["kronecker"])
    before = logits(model, name)
    model.save_pretrained(tmp_path / "factorized")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "factorized")
    adapters.densify(loaded).save_pretrained(tmp_path / "dense")
    assert "quantization_config" not in json.loads((tmp_path / "dense" / "config.json").read_text())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert not factorized_modules(plain)
    torch.testing.assert_close(logits(plain, name), before, rtol=0, atol=1e-5 * before.abs().max().item())


def in_peft(model):
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("wrap", [in_peft, nn.Sequential], ids=["PEFT", "a module"])
def test_a_wrapped_model_saves_its_networks(wrap, tmp_path):
    model = tiny("llama")
    wrapped = adapters.factorize(wrap(model), CONFIGS["tensor_train"])
    if wrap is in_peft:
        assert wrapped.merge_and_unload() is model
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))
    adapters.densify(wrapped)
    assert not hasattr(model.config, "quantization_config")


def test_a_model_without_tokens(monkeypatch):
    model, pixels = tiny("vit"), batch_for("vit")

    def get_input_embeddings():
        raise NotImplementedError  # as transformers does for a model that has none

    monkeypatch.setattr(model, "get_input_embeddings", get_input_embeddings)
    plan = adapters.plan_factorization(model, {"format": "low_rank", "rank": 3, "whiten": "full"}, [pixels])
    assert plan.report([pixels]).totals["without positions"] == plan.report().totals["all"]
    assert plan.apply().config.quantization_config.modules.keys() == factorized_modules(model).keys()


def test_models_beside_each_other_have_notes_of_their_own():
    pair = nn.ModuleList([tiny("llama"), tiny("gpt2")])
    adapters.factorize(pair, CONFIGS["low_rank"] | {"target_modules": ["up_proj", "c_fc"]})
    for model in pair:
        assert model.config.quantization_config.modules.keys() == factorized_modules(model).keys()


def test_the_trainer_trains_saves_and_resumes(tmp_path):
    model = adapters.factorize(tiny("llama"), CONFIGS["kronecker"])
    rows = [{"input_ids": row, "labels": row} for row in batch_for("llama")["input_ids"]]
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=1e-2
    )
    transformers.Trainer(model, arguments, train_dataset=rows).train()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2")
    assert torch.equal(logits(loaded, "llama"), logits(model.eval(), "llama"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-1")
    transformers.Trainer(again, arguments, train_dataset=rows).train(resume_from_checkpoint=tmp_path / "checkpoint-1")
    torch.testing.assert_close(logits(again.eval(), "llama"), logits(loaded, "llama"))


def test_a_folder_of_another_model_is_refused(tmp_path):
    adapters.factorize(tiny("llama"), CONFIGS["kronecker"]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("layers.1.mlp.up_proj", "layers.7.mlp.up_proj"))
    with pytest.raises(adapters.ConfigurationError, match=r"layers\.7\.mlp\.up_proj"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    path.write_text(
        path.read_text().replace("layers.7.mlp.up_proj", "layers.1.mlp.up_proj").replace('"ranks"', '"rank"')
    )
    with pytest.raises(adapters.ConfigurationError, match="'rank'"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_linears_of_any_class_can_be_read_by_their_parents():
    model = adapters.factorize(tiny("gpt2"), CONFIGS["low_rank"])
    module = model.transformer.h[0].mlp.c_fc
    torch.testing.assert_close(module.weight, module.full().T)
    assert isinstance(module.plain().weight, nn.Parameter)
