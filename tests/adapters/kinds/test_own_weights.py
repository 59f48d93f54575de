"""factors and weights: which parameters of the model itself train, and what is saved."""

import pytest
import torch

import adapters
from adapters import ConfigurationError
from tests.adapters.models import logits, tiny

LOW_RANK = {"format": "low_rank", "rank": 4, "target_modules": ["up_proj"]}
FROZEN = {"format": "low_rank", "rank": 4, "target_modules": ["up_proj"], "frozen_cores": [1]}


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("config", "cores"), [(LOW_RANK, (0, 1)), (FROZEN, (0,))])
def test_factors_are_the_cores_that_are_not_frozen(config, cores):
    model = adapters.attach(adapters.factorize(tiny("llama"), config), {"kind": "factors"})
    layers = range(model.config.num_hidden_layers)
    assert trained(model) == {f"model.layers.{i}.mlp.up_proj.cores.{k}" for i in layers for k in cores}
    rows = {row.name: row for row in adapters.freezing_report(model).rows}
    assert {name for name, row in rows.items() if row.trainable} == trained(model)
    if config is FROZEN:
        assert rows["model.layers.0.mlp.up_proj.cores.1"].reason == "frozen or disabled core of a factorized weight"


def test_biases_beside_factors_stay():
    model = adapters.attach(adapters.factorize(tiny("gpt2"), {"format": "low_rank", "rank": 4}), {"kind": "factors"})
    assert trained(model)
    assert not any(name.endswith("bias") for name in trained(model))


def test_factors_need_a_factorized_weight():
    with pytest.raises(ConfigurationError, match="needs factorized weights"):
        adapters.attach(tiny("llama"), {"kind": "factors"})


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["norm.weight"], {"model.norm.weight"}),
        (["layernorm.weight"], set()),
        (["mlp.down_proj.weight"], {f"model.layers.{i}.mlp.down_proj.weight" for i in range(2)}),
        (".*layers.0.*down_proj.*", {"model.layers.0.mlp.down_proj.weight"}),
        ("down_proj", set()),
    ],
)
def test_weights_are_named_by_their_ends_or_a_whole_expression(wanted, expected):
    model, config = tiny("llama"), {"kind": "weights", "target_parameters": wanted}
    if expected:
        assert trained(adapters.attach(model, config)) == expected
    else:
        with pytest.raises(ConfigurationError, match="names parameters of the model; got"):
            adapters.attach(model, config)


@pytest.mark.parametrize("wanted", [[], "", "(", 3])
def test_what_names_nothing_is_refused(wanted):
    with pytest.raises(ConfigurationError, match="target_parameters"):
        adapters.AdapterConfig.from_dict({"kind": "weights", "target_parameters": wanted})


def test_a_missing_name_is_refused():
    with pytest.raises(ConfigurationError, match=r"'target_parameters' of adapter kind 'weights' is required"):
        adapters.attach(tiny("llama"), {"kind": "weights"})


@pytest.mark.parametrize("config", [{"kind": "factors"}, {"kind": "weights", "target_parameters": ["cores.0"]}])
def test_what_trained_is_saved_and_loaded(config, tmp_path):
    model = adapters.attach(adapters.factorize(tiny("llama"), LOW_RANK), config)
    names = trained(model)
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).add_(0.1)
    adapters.save(model, tmp_path)
    loaded = adapters.load(adapters.factorize(tiny("llama"), LOW_RANK), tmp_path)
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))
    assert set(adapters.adapter_state_dict(model)) == names
    plain = adapters.densify(adapters.merge_and_unload(loaded))
    assert torch.allclose(logits(plain, "llama"), logits(model, "llama"), atol=1e-5)
