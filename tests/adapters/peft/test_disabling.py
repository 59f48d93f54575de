"""Disabled adapters: nothing in them trains, and what trains afterwards is what trained before."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import NEEDS_NEWER_PEFT, adapted, bert, layers, llama, logits, scrambled, trainable

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

METATT = {"modes": ["in", "layer", "matrix", "out"]}


def model_with(**fields) -> PeftModel:
    """Two adapters on BERT, of which the first is active, with a classifier of its own and one frozen core."""
    first = {"target_modules": ["query"], "modules_to_save": ["classifier"], "frozen_cores": [0]}
    model = get_peft_model(bert(), TensorTrainConfig(rank=2, **first, **fields), "first")
    second = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}
    model.add_adapter("second", TensorTrainConfig(rank=2, **second, **fields))
    return model


def freeze_by_hand(model: PeftModel) -> None:
    for name, parameter in model.named_parameters():
        if "layer.0" in name or "bias" in name:
            parameter.requires_grad_(False)


STATES = {
    "as created": lambda model: None,
    "frozen": lambda model: model.set_requires_grad("first", False),
    "active for inference": lambda model: model.set_adapter("first", inference_mode=True),
    "the second": lambda model: model.set_adapter("second"),
    "the second, for inference": lambda model: model.set_adapter("second", inference_mode=True),
    "partly frozen by hand": freeze_by_hand,
    "both train, one is active": lambda model: model.set_requires_grad("second"),
    "a base weight trains": lambda model: model.base_model.model.bert.pooler.requires_grad_(True),
}


def context(model):
    with model.disable_adapter():
        yield


def nested(model):
    with model.disable_adapter():
        with model.disable_adapter():
            pass
        yield


def by_layers(model):
    model.base_model.disable_adapter_layers()
    yield
    model.base_model.enable_adapter_layers()


def twice(model):
    for _ in range(2):
        model.base_model.disable_adapter_layers()
    yield
    for _ in range(2):
        model.base_model.enable_adapter_layers()


def only_enabled(model):
    model.base_model.enable_adapter_layers()
    with model.disable_adapter():
        yield


@pytest.mark.parametrize("way", [context, nested, by_layers, twice, only_enabled])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("fields", [{}, METATT], ids=["own cores", "shared cores"])
def test_what_trains_is_restored_exactly(fields, state, way):
    model = model_with(**fields)
    STATES[state](model)
    before = trainable(model)
    switching = way(model)
    next(switching)
    assert {name for name in trainable(model) if ".first." in name or ".second." in name} == set()
    next(switching, None)
    assert trainable(model) == before


@pytest.mark.parametrize("trains", [False, True])
def test_loaded_adapter_is_as_trainable_as_before(trains, tmp_path):
    adapted(llama()).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(llama(), tmp_path, is_trainable=trains)
    before = trainable(model)
    assert bool(before) == trains
    with model.disable_adapter():
        model.load_adapter(tmp_path, "second", is_trainable=trains)
    assert {name for name in trainable(model) if ".default." in name} == before
    assert bool(trainable(model) - before) == trains


@NEEDS_NEWER_PEFT
def test_methods_of_transformers_keep_a_loaded_adapter_frozen(tmp_path):
    adapted(llama()).save_pretrained(tmp_path)
    model = llama()
    model.load_adapter(tmp_path)
    assert trainable(model) == set()
    model.disable_adapters()
    model.enable_adapters()
    assert trainable(model) == set()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.set_adapter("second"),
        lambda model: model.set_adapter("second", inference_mode=True),
        lambda model: model.set_requires_grad("first", False),
        lambda model: model.set_requires_grad(["first", "second"]),
    ],
    ids=["second", "second, frozen", "freeze", "both"],
)
@pytest.mark.parametrize("fields", [{}, METATT], ids=["own cores", "shared cores"])
def test_change_of_a_disabled_model_is_that_of_an_enabled_one(fields, change):
    model, enabled = model_with(**fields), model_with(**fields)
    with model.disable_adapter():
        change(model)
        assert trainable(model) == set()
    change(enabled)
    assert trainable(model) == trainable(enabled)


def test_adapter_that_is_added_while_others_are_disabled_is_inactive_afterwards():
    model, enabled = model_with(), model_with()
    third = {"target_modules": ["query"], "rank": 3}
    with model.disable_adapter():
        model.add_adapter("third", TensorTrainConfig(**third))
        assert trainable(model) == set()
    enabled.add_adapter("third", TensorTrainConfig(**third))
    assert trainable(model) == trainable(enabled)


@pytest.mark.filterwarnings("ignore:Adapter default was active which is now deleted")
class TestDeleting:
    @staticmethod
    def loaded(tmp_path) -> PeftModel:
        """A model with a trainable adapter and one that was loaded for inference."""
        adapted(llama()).save_pretrained(tmp_path)
        model = adapted(llama())
        model.load_adapter(tmp_path, "second")
        return model

    def test_adapter_that_becomes_active_stays_frozen(self, tmp_path):
        model = self.loaded(tmp_path)
        model.delete_adapter("default")
        assert model.active_adapters == ["second"]
        assert trainable(model) == set()

    def test_adapter_that_stays_active_stays_frozen(self, tmp_path):
        model = self.loaded(tmp_path)
        model.base_model.set_adapter(["default", "second"])
        model.set_requires_grad("second", False)
        model.delete_adapter("default")
        assert model.active_adapters == ["second"]
        assert trainable(model) == set()


def test_merged_and_disabled_model_computes_as_before():
    model = adapted(llama())
    model.add_adapter("second", TensorTrainConfig(rank=2))
    scrambled(model, "second", seed=2).eval()
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    model.merge_adapter(["default"])
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(llama()))
    assert torch.equal(logits(model), both)
    assert not any(layer.merged for layer in layers(model).values())
