"""factorize and densify on models of transformers: which linears are replaced, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import adapters
from adapters.factorized.layers import factorized_modules
from tests.adapters.models import batch_for, logits, tiny

LOW_RANK = {"format": "low_rank", "rank": 4}
TARGETS = {
    "feed_forward": ({}, ["c_fc", "c_proj"], 4),
    "a layer": ({"layers": [1]}, ["c_fc", "c_proj"], 2),
    "a role": ({"target_modules": ["in"]}, ["c_fc"], 2),
    "a name": ({"target_modules": ["mlp.c_proj"]}, ["c_proj"], 2),
    "an expression": ({"target_modules": r".*h\.0\.(attn\.c_attn|mlp\.c_fc)"}, ["c_attn", "c_fc"], 2),
    "all but": ({"target_modules": "all-linear", "exclude_modules": ["o", "out"]}, ["c_attn", "c_fc"], 4),
}


@pytest.mark.parametrize(("fields", "names", "count"), TARGETS.values(), ids=TARGETS)
def test_the_named_linears_are_replaced(fields, names, count):
    model = tiny("gpt2")
    assert adapters.factorize(model, LOW_RANK | fields) is model
    found = factorized_modules(model)
    assert len(found) == count
    assert {path.rpartition(".")[2] for path in found} == set(names)
    assert model(**batch_for("gpt2")).logits.isfinite().all()


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi3", "opt", "gemma2", "bert"])
def test_networks_of_full_rank_compute_what_the_model_did(name):
    model = tiny(name)
    before = logits(model, name)
    adapters.factorize(model, {"format": "low_rank", "rank": 1000})
    assert factorized_modules(model)
    torch.testing.assert_close(logits(model, name), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_densify_gives_the_plain_model(name, tiny_t5, logits_of):
    model = tiny_t5(ours=False) if name == "t5" else tiny(name)
    classes = [type(module) for module in model.modules()]
    adapters.factorize(model, {"first_shape": [12, 6], "factors": 3})
    before = logits_of(model, name)
    assert adapters.densify(model) is model
    torch.testing.assert_close(logits_of(model, name), before, rtol=0, atol=1e-5 * before.abs().max().item())
    assert [type(module) for module in model.modules()] == classes
    assert not hasattr(model.config, "quantization_config")


@pytest.fixture
def logits_of(logits):
    """A function from a model and its name to logits."""
    from tests.adapters.models import logits as of_decoder

    return lambda model, name: logits(model) if name == "t5" else of_decoder(model, name)


def test_a_list_of_factorizations_and_a_second_call():
    model = tiny("llama")
    pair = [LOW_RANK | {"target_modules": ["gate_proj"]}, {"target_modules": ["up_proj"], "first_shape": [4, 3]}]
    adapters.factorize(model, pair)
    adapters.factorize(model, LOW_RANK | {"target_modules": ["q_proj"]})
    assert len(model.config.quantization_config.modules) == len(factorized_modules(model)) == 6


def test_any_model_with_linears():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
    adapters.factorize(model, {"target_modules": ["0"], "format": "tensor_train", "rank": 2, "d": 2})
    model(torch.ones(1, 6)).sum().backward()
    assert all(core.grad is not None for core in model[0].cores)


def test_frozen_weights_give_frozen_cores():
    model = adapters.factorize(tiny("gpt2").requires_grad_(False), LOW_RANK)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_compiled_model_gives_the_same_logits():
    model = adapters.factorize(tiny("llama"), {"first_shape": [12, 6], "factors": 2})
    before = logits(model, "llama")
    model.compile(backend="eager")
    torch.testing.assert_close(logits(model, "llama"), before)


def test_a_compiled_model_trains_to_the_same_losses():
    losses = []
    for backend in (None, "aot_eager"):
        model = adapters.factorize(tiny("llama", num_hidden_layers=1), {"first_shape": [12, 6], "factors": 2}).train()
        if backend is not None:
            model.compile(backend=backend)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        ids = batch_for("llama")["input_ids"]
        for _ in range(3):
            loss = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[3:] == pytest.approx(losses[:3], rel=1e-5)
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_gradient_checkpointing_gives_the_same_gradients(name):
    plain = adapters.factorize(tiny(name), {"first_shape": [12, 6], "factors": 2}).train()
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing_enable()
    for model in (plain, saving):
        ids = batch_for(name)["input_ids"]
        model(input_ids=ids, labels=ids).loss.backward()
    for (path, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=path)


def broken(model):
    with torch.no_grad():
        model.get_submodule("transformer.h.1.mlp.c_fc").weight[0, 0] = torch.nan
    return model


def with_subclass(model):
    class Int8(torch.Tensor):
        pass

    linear = model.get_submodule("transformer.h.0.mlp.c_fc")
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(Int8), requires_grad=False)
    return model


def other_class(model):
    class Linear4bit(nn.Linear):
        pass

    model.transformer.h[0].mlp.c_fc = Linear4bit(24, 96)
    return model


def tied(model):
    model.transformer.h[0].mlp.c_fc.weight = model.transformer.h[1].mlp.c_fc.weight
    return model


def attached(model):
    return adapters.attach(model, {"kind": "tt_lora", "rank": 2})


def quantised(model):
    model.quantization_method = "gptq"
    return model


def wrapped(model):
    return nn.Sequential(quantised(model))


def as_is(model):
    return model


REFUSALS = {
    "does not divide": (as_is, {"first_shape": [64, 32]}, ["'first_shape'", "(96, 24)", "[64, 32]", "[48, 24]"]),
    "no shape": (as_is, {}, ["'first_shape'", "required"]),
    "no shape for a linear": (as_is, {"first_shape": {"c_fc": [4, 3]}}, ["'first_shape'", "h.0.mlp.c_proj"]),
    "unknown name in shapes": (as_is, {"first_shape": {"up": [4, 3]}}, ["'first_shape'", "'up'", "c_fc"]),
    "too many factors": (as_is, {"first_shape": [48, 24], "factors": 3}, ["'factors'", "at most 2", "got 3"]),
    "too many in a pattern": (
        as_is,
        {"first_shape": [48, 24], "rank_pattern": {"c_fc": 3}},
        ["'factors'", "at most 2", "got 3"],
    ),
    "no rank": (as_is, {"format": "low_rank"}, ["'rank'", "required"]),
    "a list as rank": (as_is, {"format": "low_rank", "rank": [4]}, ["'rank'", "one number"]),
    "ranks that are useless": (as_is, {"format": "tensor_train", "rank": [9999, 2]}, ["'rank'", "at most"]),
    "factors of another size": (
        as_is,
        {"format": "tensor_train", "rank": 2, "raw_shape": [[2, 3], [2, 3]]},
        ["'raw_shape'"],
    ),
    "a field of another format": (as_is, LOW_RANK | {"first_shape": [4, 3]}, ["'first_shape'", "'low_rank'"]),
    "scalars of a train": (as_is, {"format": "tensor_train", "rank": 2, "scalars": True}, ["'scalars'"]),
    "unknown format": (as_is, {"format": "kron"}, ["'format'", "'kron'"]),
    "unknown key": (as_is, LOW_RANK | {"ranks": 3}, ["'ranks'", "'rank'"]),
    "unknown target": (as_is, LOW_RANK | {"target_modules": ["up_proj"]}, ["'target_modules'", "'up_proj'"]),
    "a core that is none": (as_is, LOW_RANK | {"frozen_cores": [2]}, ["'frozen_cores'", "got 2"]),
    "a layer that is none": (as_is, LOW_RANK | {"layers": [2]}, ["'layers'", "[2]"]),
    "pruned factors": (as_is, {"first_shape": [48, 24], "factors": 2, "start": "pruned"}, ["'start'", "2 factors"]),
    "twice": (as_is, [LOW_RANK, LOW_RANK | {"layers": [0]}], ["'target_modules'", "h.0.mlp.c_fc", "two"]),
    "NaN": (broken, LOW_RANK, ["NaN", "h.1.mlp.c_fc"]),
    "a tensor subclass": (with_subclass, LOW_RANK, ["a weight of class", "h.0.mlp.c_fc"]),
    "a quantised class": (other_class, LOW_RANK, ["Linear4bit", "h.0.mlp.c_fc"]),
    "a quantised model": (quantised, LOW_RANK, ["'gptq'"]),
    "a quantised model in another": (wrapped, LOW_RANK, ["'gptq'"]),
    "a tied weight": (tied, LOW_RANK, ["tied", "h.0.mlp.c_fc"]),
    "adapters": (attached, LOW_RANK, ["merge_and_unload", "h.0.mlp.c_fc"]),
    "whiten without a calibration": (as_is, LOW_RANK | {"whiten": "full"}, ["'whiten'", "calibration"]),
    "whiten a random start": (as_is, LOW_RANK | {"whiten": "full", "start": "random"}, ["'whiten'", "'random'"]),
    "an empty list": (as_is, [], ["at least one"]),
}


@pytest.mark.parametrize(("change", "config", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused_and_the_model_is_as_it_was(change, config, said, snapshot):
    model = change(tiny("gpt2"))
    before = snapshot(model)
    with pytest.raises(adapters.ConfigurationError) as error:
        adapters.factorize(model, config)
    assert str(error.value).count("\n") == 0
    for part in said:
        assert part in str(error.value)
    assert snapshot(model) == before


def test_what_is_factorized_is_refused():
    model = adapters.factorize(tiny("gpt2"), LOW_RANK)
    with pytest.raises(adapters.ConfigurationError, match="factorized already"):
        adapters.factorize(model, LOW_RANK)
    with pytest.raises(adapters.ConfigurationError, match="factorize first"):
        adapters.densify(tiny("gpt2"))


def test_a_configuration_is_json():
    config = adapters.FactorizedConfig(first_shape={"c_fc": (4, 3)}, rank_pattern={"c_fc": 2}, frozen_cores=(-1,))
    assert adapters.FactorizedConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["frozen_cores"] == [1]
