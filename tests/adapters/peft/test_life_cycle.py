"""The life cycle that PEFT expects of a tuner, for every setting on one model and for every model with two settings."""

import copy
import pickle

import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file
from torch import nn

from adapters import MergeError
from adapters.peft import TensorTrainConfig
from adapters.peft.shared import OWNER
from tests.adapters.peft.tiny import (
    NEEDS_NEWER_PEFT,
    adapted,
    bert,
    called,
    gpt2,
    layers,
    llama,
    logits,
    primes,
    scrambled,
    t5,
    trainable,
    vit,
)
from tests.versions import checkpoint_activations

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SETTINGS = {
    "train": {"d": 3, "shape_mode": "ascending"},
    "cheapest": {"shape_mode": "cheapest"},
    "ring": {"format": "tensor_ring", "rank": 2},
    "basis": {"format": "tensor_basis", "basis_size": 2},
    "basis of all": {"format": "tensor_basis", "share_across": ["layers", "sublayers", "projections"]},
    "low-rank modes": {"modes": ["in", "in", "out", "out"]},
    "cp": {"format": "cp"},
    "tucker": {"format": "tucker"},
    "metatt": {"modes": ["in", "layer", "matrix", "out"], "zero_core": 0},
    "lotr": {"modes": ["in", "linear", "out"], "zero_core": 1},
    "lorta": {"modes": ["in", "out", "out", "layer", "matrix"], "format": "cp", "zero_core": 2},
    "shared cores": {"shared_cores": [0, 2], "shape_mode": "ascending"},
    "shared and frozen": {"shared_cores": [0], "frozen_cores": [0], "shape_mode": "ascending"},
    "dense bias": {"delta_bias": "dense", "scaling": 0.5},
    "tt bias": {"delta_bias": "tt"},
    "activation": {"core_activation": "gelu"},
    "frozen and disabled": {"frozen_cores": [0], "disabled_cores": [1]},
    "principal": {"init": "principal"},
    "patterns": {"rank_pattern": {"q_proj": 1, "layers.1.self_attn.v_proj": [1, 2]}, "shape_mode": "ascending"},
}
LINEAR = [name for name in SETTINGS if name != "activation"]
SHARING = {"basis", "basis of all", "metatt", "lotr", "lorta", "shared cores", "shared and frozen"}
TARGETS = ["q_proj", "v_proj"]
MODELS = {
    "gpt2": (gpt2, ["c_attn"]),
    "llama": (llama, TARGETS),
    "bert": (bert, ["query", "value"]),
    "vit": (vit, ["q_proj", "v_proj"]),
    "t5": (t5, ["q", "v"]),
    "primes": (primes, ["0", "4"]),
}
TWO = ("cheapest", "metatt")
MECHANISMS = [
    "cheapest",
    "basis",
    "tucker",
    "metatt",
    "shared and frozen",
    "tt bias",
    "principal",
    "frozen and disabled",
]
"""One setting for each way of owning Parameters, for what PEFT does with them whatever the format."""
every_mechanism = pytest.mark.parametrize("setting", MECHANISMS)
every_linear_setting = pytest.mark.parametrize("setting", LINEAR)
every_model = pytest.mark.parametrize(
    ("build", "targets", "setting"),
    [(*model, setting) for model in MODELS.values() for setting in TWO],
    ids=[f"{name}, {setting}" for name in MODELS for setting in TWO],
)


def fields(setting: str, targets: list[str] = TARGETS) -> dict:
    return {"rank": 2, **SETTINGS[setting], "target_modules": targets}


def make(setting: str, build=llama, targets: list[str] = TARGETS, **more) -> PeftModel:
    """An adapted model with deltas far from zero."""
    return adapted(build(), **fields(setting, targets), **more)


def fresh(setting: str, build=llama, targets: list[str] = TARGETS, **more) -> PeftModel:
    return get_peft_model(build(), TensorTrainConfig(**fields(setting, targets), **more)).eval()


everywhere = pytest.mark.parametrize(
    ("build", "targets", "setting"),
    [
        *(pytest.param(llama, TARGETS, setting, id=setting) for setting in SETTINGS),
        *(pytest.param(*MODELS[name], setting, id=f"{name}, {setting}") for name in MODELS for setting in TWO),
    ],
)


class TestTraining:
    @everywhere
    def test_step_zero_equals_the_base_bit_for_bit(self, build, targets, setting):
        assert torch.equal(logits(fresh(setting, build, targets)), logits(build()))

    @everywhere
    def test_every_adapter_parameter_and_nothing_else_gets_a_gradient(self, build, targets, setting):
        model = scrambled(fresh(setting, build, targets)).train()
        called(model).square().sum().backward()
        names = trainable(model)
        assert names
        assert all(".tt_lora_delta.default." in name for name in names)
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None and bool(parameter.grad.any())) == (name in names), name

    @every_mechanism
    def test_two_steps_change_trainable_parameters_only(self, setting):
        model = fresh(setting).train()
        before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):  # in the first step only the core at zero has a gradient
            optimizer.zero_grad()
            called(model).square().sum().backward()
            optimizer.step()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert moved == trainable(model)

    @pytest.mark.parametrize("setting", ["cheapest", "metatt", "principal"])
    def test_gradient_checkpointing_gives_the_same_gradients(self, setting):
        grads = []
        for checkpointed in (False, True):
            model = make(setting).train()
            if checkpointed:
                checkpoint_activations(model.base_model.model)
            model(input_ids=torch.arange(1, 9).reshape(2, 4), labels=torch.arange(1, 9).reshape(2, 4)).loss.backward()
            grads.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
        assert grads[0].keys() == grads[1].keys() != set()
        for name, grad in grads[0].items():
            torch.testing.assert_close(grads[1][name], grad)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize(("setting", "autocast"), [("metatt", False), ("principal", True)])
    def test_adapter_stays_float32_on_a_half_precision_base(self, setting, dtype, autocast):
        config = TensorTrainConfig(**fields(setting))
        model = get_peft_model(llama().to(dtype), config, autocast_adapter_dtype=autocast).eval()
        assert torch.equal(logits(model), logits(llama().to(dtype)))
        assert {p.dtype for name, p in model.named_parameters() if ".tt_lora_delta." in name} == {torch.float32}
        assert logits(scrambled(model)).dtype == dtype

    @pytest.mark.parametrize("setting", ["cheapest", "metatt"])
    def test_torch_compile_gives_the_same_logits(self, setting):
        model = make(setting, primes, ["0", "4"])
        torch._dynamo.reset()
        compiled = logits(torch.compile(model, backend="eager"))
        torch._dynamo.reset()
        torch.testing.assert_close(compiled, logits(model), rtol=1e-5, atol=1e-5)


class TestFiles:
    @everywhere
    def test_saved_adapter_loads_under_any_name(self, build, targets, setting, tmp_path):
        model = make(setting, build, targets)
        model.save_pretrained(tmp_path)
        for name in ("default", "other"):
            loaded = PeftModel.from_pretrained(build(), tmp_path, adapter_name=name).eval()
            assert torch.equal(logits(loaded), logits(model))
            assert trainable(loaded) == set()

    @every_mechanism
    def test_low_memory_loading_gives_the_same_logits(self, setting, tmp_path):
        model = make(setting)
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(llama(), tmp_path, low_cpu_mem_usage=True).eval()
        assert not any(parameter.is_meta for parameter in loaded.parameters())
        assert torch.equal(logits(loaded), logits(model))

    @every_mechanism
    @NEEDS_NEWER_PEFT
    def test_transformers_loads_and_deletes_it(self, setting, tmp_path):
        model = make(setting)
        model.save_pretrained(tmp_path / "adapter")
        llama().save_pretrained(tmp_path / "base")
        loaded = type(llama()).from_pretrained(tmp_path / "base")
        info = loaded.load_adapter(tmp_path / "adapter")
        assert info.missing_keys == info.unexpected_keys == info.mismatched_keys == set()
        assert torch.equal(logits(loaded.eval()), logits(model))
        loaded.delete_adapter("default")
        assert torch.equal(logits(loaded), logits(llama()))

    @every_mechanism
    def test_is_trainable_makes_a_loaded_adapter_trainable(self, setting, tmp_path):
        model = make(setting)
        model.save_pretrained(tmp_path)
        assert trainable(PeftModel.from_pretrained(llama(), tmp_path, is_trainable=True)) == trainable(model)

    @every_mechanism
    def test_saving_a_loaded_adapter_writes_the_same_bytes(self, setting, tmp_path):
        make(setting).save_pretrained(tmp_path / "a")
        PeftModel.from_pretrained(llama(), tmp_path / "a").save_pretrained(tmp_path / "b")
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_shared_tensors_are_saved_once(self, tmp_path):
        make("lotr").save_pretrained(tmp_path)
        shapes = sorted(tuple(tensor.shape) for tensor in load_file(tmp_path / "adapter_model.safetensors").values())
        assert shapes == [(1, 1, 16, 2), (2, 1, 1, 2), (2, 1, 1, 2), (2, 1, 1, 2), (2, 1, 1, 2), (2, 16, 1, 1)]

    @every_mechanism
    def test_copies_and_pickles_compute_the_same_and_are_independent(self, setting):
        model = make(setting)
        before = logits(model)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(logits(other), before)
            scrambled(other, seed=7)
            assert not torch.equal(logits(other), before)
            assert torch.equal(logits(model), before)


class TestMerging:
    @every_linear_setting
    def test_merged_logits_agree_and_unmerging_is_bit_exact(self, setting):
        model = make(setting)
        active = logits(model)
        model.merge_adapter(safe_merge=True)
        assert model.get_model_status().merged_adapters == ["default"]
        torch.testing.assert_close(logits(model), active, rtol=1e-4, atol=1e-5)
        model.unmerge_adapter()
        assert torch.equal(logits(model), active)
        assert torch.equal(logits(model.unload()), logits(llama()))

    @every_model
    def test_merge_and_unload_gives_a_plain_model(self, build, targets, setting):
        model = make(setting, build, targets)
        active = logits(model)
        plain = model.merge_and_unload(safe_merge=True)
        torch.testing.assert_close(logits(plain), active, rtol=1e-4, atol=1e-5)
        assert plain.state_dict().keys() == build().state_dict().keys()
        assert [type(module) for module in plain.modules()] == [type(module) for module in build().modules()]

    @every_mechanism
    def test_safe_merge_of_nan_raises_and_leaves_the_layers_unchanged(self, setting):
        model = make(setting)
        before = {path: layer.base_layer.weight.clone() for path, layer in layers(model).items()}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in trainable(model):
                    parameter.fill_(float("nan"))
        with pytest.raises(MergeError, match="finite"):
            model.merge_adapter(safe_merge=True)
        assert all(torch.equal(layer.base_layer.weight, before[path]) for path, layer in layers(model).items())

    def test_delta_weight_has_the_shape_of_the_base_weight(self):
        model = make("cheapest", gpt2, ["c_attn"])
        for layer in layers(model).values():
            delta = layer.get_delta_weight("default")
            assert delta.shape == layer.base_layer.weight.shape == (16, 48)
            untouched = layer.base_layer.weight.clone()
            layer.merge()
            torch.testing.assert_close(layer.base_layer.weight - untouched, delta)


class TestSeveral:
    @every_mechanism
    def test_added_adapter_changes_nothing_until_it_is_set(self, setting):
        model = make("train")
        alone, trained = logits(model), trainable(model)
        model.add_adapter("second", TensorTrainConfig(**fields(setting)))
        scrambled(model, "second", seed=2).eval()
        assert torch.equal(logits(model), alone)
        assert trainable(model) == trained
        model.set_adapter("second")
        of_one = scrambled(fresh(setting), seed=2)
        assert torch.equal(logits(model), logits(of_one))
        assert {name.replace(".second.", ".default.") for name in trainable(model)} == trainable(of_one)

    @every_mechanism
    def test_set_requires_grad_applies_to_the_whole_adapter(self, setting):
        model = make(setting)
        trained = trainable(model)
        model.set_requires_grad("default", False)
        assert trainable(model) == set()
        model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=TARGETS))
        assert trainable(model) == set()
        model.set_requires_grad("default")
        assert trainable(model) == trained

    @every_mechanism
    def test_disabled_model_equals_the_base(self, setting):
        model = make(setting)
        active = logits(model)
        with model.disable_adapter():
            assert torch.equal(logits(model), logits(llama()))
            assert trainable(model) == set()
            assert model.get_model_status().enabled is False
        assert torch.equal(logits(model), active)

    @every_mechanism
    def test_deleting_an_inactive_adapter_leaves_the_active_one(self, setting):
        model = make("train")
        alone = logits(model)
        model.add_adapter("second", TensorTrainConfig(**fields(setting)))
        model.delete_adapter("second")
        assert not any("second" in name for name, _ in model.named_parameters())
        assert not hasattr(model.base_model.model, OWNER)
        assert torch.equal(logits(model.eval()), alone)

    @pytest.mark.filterwarnings("ignore:Adapter default was active which is now deleted")
    @every_mechanism
    def test_deleting_the_active_adapter_activates_the_other(self, setting):
        model = make(setting)
        model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=TARGETS))
        model.delete_adapter("default")
        assert not any(".default." in name for name, _ in model.named_parameters())
        status = model.get_model_status()
        assert (status.available_adapters, status.active_adapters) == (["second"], ["second"])
        assert torch.equal(logits(scrambled(model, "second").eval()), logits(make("cheapest")))

    def test_two_adapters_with_shared_cores_are_saved_and_loaded_separately(self, tmp_path):
        model = make("metatt")
        model.add_adapter("second", TensorTrainConfig(**fields("lotr")))
        scrambled(model, "second", seed=2).eval()
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(llama(), tmp_path)
        loaded.load_adapter(tmp_path / "second", "second")
        for name in ("default", "second"):
            model.set_adapter(name)
            loaded.set_adapter(name)
            assert torch.equal(logits(loaded.eval()), logits(model))
        assert [sorted(m.get_model_status().available_adapters) for m in (model, loaded)] == [["default", "second"]] * 2

    @every_mechanism
    def test_model_status_has_every_layer(self, setting):
        model = make(setting)
        status = model.get_model_status()
        assert (status.enabled, status.active_adapters, status.merged_adapters) == (True, ["default"], [])
        assert status.available_adapters == ["default"]
        assert status.num_adapter_layers == len(layers(model)) + (setting in SHARING)
        assert status.trainable_params == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert {name for layer in model.get_layer_status() for name in layer.devices["default"]} == {"cpu"}

    @pytest.mark.parametrize("setting", ["cheapest", "metatt"])
    def test_modules_to_save_train_and_are_saved(self, setting, tmp_path):
        model = make(setting, bert, ["query", "value"], task_type=TaskType.SEQ_CLS)
        assert any("classifier.modules_to_save.default" in name for name in trainable(model))
        model.base_model.model.classifier.modules_to_save["default"].weight.data.normal_()
        model.save_pretrained(tmp_path)
        assert torch.equal(logits(PeftModel.from_pretrained(bert(), tmp_path).eval()), logits(model))


def test_lora_only_features_of_peft_raise(tmp_path):
    model = make("cheapest")
    before = logits(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"only supports .*LORA.* but TT_LORA was passed"):
        hotswap_adapter(model, tmp_path, "default")
    assert torch.equal(logits(model), before)


def test_prime_size_is_whole_in_one_core():
    layer = next(iter(layers(fresh("train", primes, ["0"])).values()))
    (rows, columns), shapes = layer.tt_lora_delta["default"].linear.raw_shape, []
    assert (sorted(rows), sorted(columns)) == ([1, 1, 37], [1, 1, 31])
    shapes = [tuple(core.shape[1:3]) for core in layer.tt_lora_delta["default"].linear.cores]
    assert shapes == list(zip(rows, columns, strict=True))


def test_layers_of_a_sequential_are_told_apart_by_number():
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    get_peft_model(model, TensorTrainConfig(rank=2, modes=["in", "layer", "matrix", "out"], target_modules=["0", "2"]))
    # one core for each side, one slice for each of two layers, and one for the one kind of matrix
    assert sorted(key[-1] for key in getattr(model, OWNER).tt_lora_delta["default"]) == ["0", "1", "1", "2", "3"]
    assert model(torch.ones(1, 8)).shape == (1, 8)
