"""Compiled models: an adapter has the same files, whichever part of the model is compiled, and whenever."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

import adapters
from adapters import Deltas
from adapters.peft import TensorTrainConfig, from_peft, to_peft
from tests.adapters.peft.tiny import adapted, layers, llama, logits, scrambled, t5, trainable

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FIELDS = {"rank": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
METATT = {**FIELDS, "modes": ["in", "layer", "matrix", "out"]}


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def with_compiled_layer(model: nn.Module) -> nn.Module:
    inner = model.model if isinstance(model, PeftModel) else model
    inner.model.layers[0] = compiled(inner.model.layers[0])
    return model


def base_compiled_later(model: PeftModel) -> PeftModel:
    model.base_model.model = compiled(model.base_model.model)
    return model


WAYS = {
    "whole": (llama, compiled),
    "base": (lambda: compiled(llama()), lambda model: model),
    "base, later": (llama, base_compiled_later),
    "layer": (lambda: with_compiled_layer(llama()), lambda model: model),
    "layer, later": (llama, with_compiled_layer),
}
every_way = pytest.mark.parametrize("way", WAYS)


def make(way: str, fields: dict) -> nn.Module:
    base, after = WAYS[way]
    return after(adapted(base(), **fields))


@pytest.mark.parametrize(
    ("way", "fields"), [*((way, FIELDS) for way in WAYS), ("whole", METATT), ("base", METATT), ("layer, later", METATT)]
)
def test_files_are_those_of_the_same_model_uncompiled(way, fields, tmp_path):
    plain = adapted(llama(), **fields)
    plain.save_pretrained(tmp_path / "plain")
    model = make(way, fields)
    model.save_pretrained(tmp_path / "compiled")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "compiled" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert get_peft_model_state_dict(model).keys() == get_peft_model_state_dict(plain).keys()
    torch.testing.assert_close(logits(model), logits(plain))
    loaded = PeftModel.from_pretrained(llama(), tmp_path / "compiled").eval()
    torch.testing.assert_close(logits(loaded), logits(plain))


@every_way
def test_a_file_loads_into_a_compiled_model(way, tmp_path):
    fields = METATT if way == "layer" else FIELDS
    plain = scrambled(adapted(llama(), **fields), seed=5)
    plain.save_pretrained(tmp_path)
    if way in ("base", "layer"):
        model = PeftModel.from_pretrained(WAYS[way][0](), tmp_path).eval()
        torch.testing.assert_close(logits(model), logits(plain))
    model = make(way, fields)
    model.load_adapter(tmp_path, "second")
    model.set_adapter("second")
    torch.testing.assert_close(logits(model.eval()), logits(plain))


@every_way
def test_tensors_can_be_set_in_a_compiled_model(way):
    fields = {"rank": 2, "target_modules": ["q_proj"]}
    source, model = scrambled(adapted(llama(), **fields), seed=5), make(way, fields)
    set_peft_model_state_dict(model, get_peft_model_state_dict(source))
    torch.testing.assert_close(logits(model), logits(source))


@every_way
def test_merging_gives_the_plain_model(way, tmp_path):
    fields = {"rank": 2, "target_modules": ["q_proj"]}
    plain, model = adapted(llama(), **fields), make(way, fields)
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(type(llama()).from_pretrained(tmp_path).eval()), logits(plain))


@every_way
def test_deltas_have_the_original_paths(way):
    fields = {"rank": 2, "target_modules": ["q_proj"]}
    plain, model = Deltas.of(adapted(llama(), **fields)), Deltas.of(make(way, fields))
    assert list(model) == list(plain)
    assert model.distance(plain) < 1e-12


@pytest.mark.parametrize("way", ["base", "layer"])
@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r"model\.layers\.0\.self_attn\.q_proj"},
        {"target_modules": ["model.layers.0.self_attn.q_proj"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [0]},
        {"target_modules": ["q_proj"], "rank_pattern": {"model.layers.0.self_attn.q_proj": 1}},
        {"target_modules": "all-linear"},
    ],
    ids=str,
)
def test_configuration_means_the_same_in_a_compiled_model(way, fields):
    model, plain = (get_peft_model(b(), TensorTrainConfig(rank=2, **fields)) for b in (WAYS[way][0], llama))
    assert layers(model).keys() == layers(plain).keys()
    assert trainable(model) == trainable(plain)
    assert model.peft_config["default"].to_dict() == plain.peft_config["default"].to_dict()
    shapes = {name: tensor.shape for name, tensor in get_peft_model_state_dict(plain).items()}
    assert {name: tensor.shape for name, tensor in get_peft_model_state_dict(model).items()} == shapes


def test_compiled_base_stays_compiled():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    logits(adapted(torch.compile(llama(), backend=backend), target_modules=["q_proj"]))
    assert graphs


class TestFoldersWithNamesOfWrappers:
    """Folders that PEFT, or an older version of this package, wrote from a compiled model."""

    @staticmethod
    def renamed(folder):
        path = folder / "adapter_model.safetensors"
        names = {
            name.replace("base_model.model.", "base_model.model._orig_mod.", 1): tensor
            for name, tensor in load_file(path).items()
        }
        save_file(names, path, {"format": "pt"})

    def test_adapter_of_the_tuner_loads(self, tmp_path):
        model = adapted(llama(), target_modules=["q_proj"])
        model.save_pretrained(tmp_path)
        self.renamed(tmp_path)
        assert torch.equal(logits(PeftModel.from_pretrained(llama(), tmp_path).eval()), logits(model))
        assert Deltas.read(tmp_path).distance(Deltas.of(model)) < 1e-12

    def test_adapter_of_the_tuner_is_converted(self, tmp_path):
        t5().save_pretrained(tmp_path / "base")
        model = adapted(target_modules=["wi", "wo"])
        model.save_pretrained(tmp_path / "peft")
        self.renamed(tmp_path / "peft")
        from_peft(tmp_path / "peft", tmp_path / "native", base=str(tmp_path / "base"))
        torch.testing.assert_close(logits(adapters.load(t5(), tmp_path / "native").eval()), logits(model))

    def test_lora_is_read_under_the_original_paths(self, tmp_path):
        model = get_peft_model(compiled(llama()), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        model.save_pretrained(tmp_path)
        assert any("_orig_mod" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
        assert sorted(Deltas.read(tmp_path)) == [f"model.layers.{k}.self_attn.q_proj" for k in (0, 1)]


def test_native_adapter_of_a_compiled_model_is_converted(tmp_path):
    model = adapters.attach(t5(), {"kind": "tt_lora", "rank": 2})
    adapters.save(compiled(scrambled(model)), tmp_path / "native")
    to_peft(tmp_path / "native", tmp_path / "peft")
    torch.testing.assert_close(logits(PeftModel.from_pretrained(t5(), tmp_path / "peft").eval()), logits(model.eval()))
    assert "_orig_mod" not in json.dumps(json.loads((tmp_path / "peft" / "adapter_config.json").read_text()))


def test_an_adapter_added_after_a_layer_was_compiled_finds_it_by_its_path():
    model = adapted(llama(), target_modules=["q_proj"])
    layers = model.get_submodule("base_model.model.model.layers")
    layers[0] = torch.compile(layers[0], backend="eager")
    model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=["layers.0.self_attn.q_proj"]))
    assert "second" in model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").tt_lora_delta
