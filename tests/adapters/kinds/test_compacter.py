"""phm and compacter in a model: the effect of each field, shared parameters and their gradients, and errors."""

import copy

import pytest
import torch

import adapters
from adapters import AdapterConfig, ConfigurationError, HypercomplexLinear
from third_party.models.t5 import T5ForConditionalGeneration

D, K, SITES = 24, 6, 8  # of the tiny T5 with reduction factor 4
N = 3
FACTORS = ["blocks_left", "blocks_right"]


def compacter(**fields):
    return {"kind": "compacter", "reduction_factor": 4, "n": N, **fields}


def hypercomplex_layers(model):
    return {path: module for path, module in model.named_modules() if isinstance(module, HypercomplexLinear)}


SETTINGS = [
    # description, each projection's own parameters, shared ones, trainable parameters without the biases
    (compacter(), FACTORS, ["rules"], N**3 + SITES * 2 * (K + D)),
    (compacter(n=2), FACTORS, ["rules"], 2**3 + SITES * 2 * (K + D)),
    (compacter(rank=2), FACTORS, ["rules"], N**3 + SITES * 2 * 2 * (K + D)),
    (compacter(factorized_weights=False), ["blocks"], ["rules"], N**3 + SITES * 2 * N * (K // N) * (D // N)),
    (compacter(factorized_rules=True), FACTORS, ["rules_left", "rules_right"], 2 * N * N + SITES * 2 * (K + D)),
    (
        compacter(factorized_rules=True, rule_rank=2),
        FACTORS,
        ["rules_left", "rules_right"],
        2 * 2 * N * N + SITES * 2 * (K + D),
    ),
    (compacter(shared_rules=False), [*FACTORS, "rules"], [], SITES * 2 * (N**3 + K + D)),
    (
        compacter(shared_weights=True),
        [],
        ["down-blocks_left", "down-blocks_right", "rules", "up-blocks_left", "up-blocks_right"],
        N**3 + 2 * (K + D),
    ),
    (compacter(learnable_rules=False), FACTORS, ["rules"], SITES * 2 * (K + D)),
    (compacter(reduction_factor=2), FACTORS, ["rules"], N**3 + SITES * 2 * (2 * K + D)),
    (
        {"kind": "phm", "reduction_factor": 4, "n": N},
        ["blocks", "rules"],
        [],
        SITES * 2 * (N**3 + N * (K // N) * (D // N)),
    ),
]


@pytest.mark.parametrize(("description", "own", "shared", "count"), SETTINGS, ids=str)
def test_each_setting_has_its_parameters_and_their_closed_form_count(tiny_t5, description, own, shared, count):
    model = adapters.attach(tiny_t5(), description)
    layers = hypercomplex_layers(model)
    assert len(layers) == 2 * SITES
    for layer in layers.values():
        assert sorted(dict(layer.named_parameters())) == ["bias", *own]
    prefix = f"{description['kind']}-all_tasks-"
    assert sorted(getattr(model, "shared_parameters", {})) == [prefix + name for name in shared]
    biases = SITES * (D // description["reduction_factor"] + D)
    assert adapters.summary(model).total.trainable == count + biases


@pytest.mark.parametrize("fields", [{}, {"factorized_rules": True}, {"factorized_weights": False}], ids=str)
def test_the_gradient_of_shared_rules_is_the_sum_over_all_projections(tiny_t5, batch, trained, fields):
    together = trained(adapters.attach(tiny_t5(), compacter(**fields)))
    apart = adapters.attach(tiny_t5(), compacter(**fields, shared_rules=False))
    with torch.no_grad():
        for layer, twin in zip(
            hypercomplex_layers(together).values(), hypercomplex_layers(apart).values(), strict=True
        ):
            twin.bias.copy_(layer.bias)
            for name, parameter in twin.shareable().items():
                parameter.copy_(layer.live(name))
    for model in (together, apart):
        model(**batch).loss.backward()
    names = next(iter(hypercomplex_layers(apart).values())).rule_names
    for name in names:
        gradients = [layer.live(name).grad for layer in hypercomplex_layers(apart).values()]
        assert len(gradients) == 2 * SITES
        assert all(gradient.any() for gradient in gradients)
        owned = together.shared_parameters[f"compacter-all_tasks-{name}"]
        torch.testing.assert_close(owned.grad, sum(gradients), rtol=1e-4, atol=1e-6)


def test_the_gradient_of_shared_blocks_is_the_sum_over_down_or_up_and_biases_are_not_shared(tiny_t5, batch, trained):
    together = trained(adapters.attach(tiny_t5(), compacter(shared_weights=True)))
    apart = adapters.attach(tiny_t5(), compacter())
    with torch.no_grad():
        for layer, twin in zip(
            hypercomplex_layers(together).values(), hypercomplex_layers(apart).values(), strict=True
        ):
            twin.bias.copy_(layer.bias)
            for name, parameter in twin.shareable().items():
                parameter.copy_(layer.live(name))
    for model in (together, apart):
        model(**batch).loss.backward()
    for projection in ("down", "up"):
        layers = [layer for path, layer in hypercomplex_layers(apart).items() if path.endswith(projection)]
        for name in FACTORS:
            owned = together.shared_parameters[f"compacter-all_tasks-{projection}-{name}"]
            torch.testing.assert_close(owned.grad, sum(layer.live(name).grad for layer in layers), rtol=1e-4, atol=1e-6)
    for layer, twin in zip(hypercomplex_layers(together).values(), hypercomplex_layers(apart).values(), strict=True):
        torch.testing.assert_close(layer.bias.grad, twin.bias.grad, rtol=1e-4, atol=1e-6)


def test_all_parameters_have_a_gradient_after_one_step(tiny_t5, batch):
    model = adapters.attach(tiny_t5(), compacter())
    names = {name for name, p in model.named_parameters() if p.requires_grad}

    def moving():
        model.zero_grad()
        model(**batch).loss.backward()
        return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}

    assert moving() == {name for name in names if name.endswith(("up.blocks_left", "up.bias"))}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
    assert moving() == names


@pytest.mark.parametrize(
    "description",
    [
        compacter(),
        compacter(rank=2, factorized_rules=True, rule_rank=2),
        compacter(factorized_weights=False),
        compacter(shared_rules=False),
        compacter(shared_weights=True),
        compacter(learnable_rules=False),
        {"kind": "phm", "reduction_factor": 4, "n": N},
    ],
    ids=str,
)
def test_step_0_equals_the_base_model_and_the_adapter_learns(tiny_t5, batch, logits, description):
    base = tiny_t5()
    model = adapters.attach(copy.deepcopy(base), description)
    assert torch.equal(logits(model), logits(base))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(6):
        loss = model(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1
    for path, layer in hypercomplex_layers(model).items():
        if path.endswith("up"):
            assert torch.linalg.matrix_rank(layer.full(), rtol=1e-5) == maximal_rank(layer), path


def maximal_rank(layer):
    """The rank of W = sum_i A_i (x) B_i for generic matrices."""
    rule = layer.n if len(layer.rule_names) == 1 else layer.live("rules_left").shape[2]
    rows, columns = layer.out_features // layer.n, layer.in_features // layer.n
    block = min(rows, columns) if len(layer.block_names) == 1 else layer.live("blocks_left").shape[2]
    return min(layer.n * rule * block, layer.in_features)


def test_each_task_has_its_own_rules(tiny_t5):
    model = tiny_t5()
    for task in ("rte", "cola"):
        adapters.attach(model, compacter(), task=task)
    assert sorted(model.shared_parameters) == ["compacter-cola-rules", "compacter-rte-rules"]


def test_each_of_two_compacters_has_its_own_rules(tiny_t5):
    model = adapters.attach(
        tiny_t5(), [compacter(sublayers=["self_attention"]), compacter(sublayers=["feed_forward"], n=2)]
    )
    assert {key: tuple(p.shape) for key, p in model.shared_parameters.items()} == {
        "compacter-all_tasks-rules": (3, 3, 3),
        "compacter_2-all_tasks-rules": (2, 2, 2),
    }


@pytest.mark.parametrize("shared_rules", [True, False])
def test_fixed_rules_are_frozen_with_a_reason_and_saved(tiny_t5, batch, logits, trained, tmp_path, shared_rules):
    description = compacter(learnable_rules=False, shared_rules=shared_rules)
    model = trained(adapters.attach(tiny_t5(), description))
    reasons = {row.name: row.reason for row in adapters.freezing_report(model).rows if "rules" in row.name}
    assert len(reasons) == (1 if shared_rules else 2 * SITES)
    assert set(reasons.values()) == {"fixed rule of an adapter"}
    assert "fixed rule of an adapter" in str(adapters.freezing_report(model))
    model(**batch).loss.backward()
    assert all(model.get_parameter(name).grad is None for name in reasons)

    adapters.save(model, tmp_path)
    torch.manual_seed(99)
    loaded = adapters.load(tiny_t5(), tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert all(not loaded.get_parameter(name).requires_grad for name in reasons)


@pytest.mark.parametrize("description", [compacter(shared_weights=True), {"kind": "low_rank", "reduction_factor": 4}])
def test_from_pretrained_adds_adapters_to_a_base_and_restores_an_adapted_model(
    tiny_t5, logits, trained, tmp_path, description
):
    base = tiny_t5()
    base.save_pretrained(tmp_path / "base")
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", adapters=description).eval()
    assert torch.equal(logits(model), logits(base))
    trained(model).save_pretrained(tmp_path / "whole")
    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "whole").eval()
    assert torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), logits(base))


INVALID_FIELDS = [
    ({"kind": "phm", "n": 0}, ["'n'", "'phm'", "0"]),
    (compacter(n=-4), ["'n'", "'compacter'", "-4"]),
    (compacter(n=2.0), ["'n'", "2.0"]),
    (compacter(rank=0), ["'rank'", "0"]),
    (compacter(rule_rank=2), ["'rule_rank'", "factorized_rules", "2"]),
    (compacter(factorized_rules=True, rule_rank=0), ["'rule_rank'", "0"]),
    (compacter(factorized_weights=False, rank=1), ["'rank'", "factorized_weights", "1"]),
    (compacter(shared_rules="yes"), ["'shared_rules'", "yes"]),
    ({"kind": "phm", "shared_rules": True}, ["'shared_rules'"]),
    ({"kind": "phmm"}, ["'phmm'", "'phm'"]),
    ({"kind": "low_rank", "rank": 0}, ["'rank'", "'low_rank'", "0"]),
    ({"kind": "low_rank", "rank": [1, 2]}, ["'rank'", "[1, 2]"]),
]


@pytest.mark.parametrize(("description", "named"), INVALID_FIELDS, ids=str)
def test_invalid_fields_raise_an_error(description, named):
    with pytest.raises(ConfigurationError) as error:
        AdapterConfig.from_dict(description)
    assert all(name in str(error.value) for name in named), str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("kind", "n", "reduction_factor"), [("phm", 5, 4), ("phm", 4, 4), ("compacter", 12, 4), ("compacter", 7, 3)]
)
def test_an_n_that_does_not_divide_both_sizes_raises_an_error_with_valid_choices(
    tiny_t5, snapshot, kind, n, reduction_factor
):
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(ConfigurationError) as error:
        adapters.attach(model, {"kind": kind, "n": n, "reduction_factor": reduction_factor})
    choices = {4: "1, 2, 3, 6", 3: "1, 2, 4, 8"}[reduction_factor]
    width = D // reduction_factor
    assert f"'n' of adapter kind {kind!r} must divide both sizes" in str(error.value)
    assert f"got {n} for 24 -> {width}: choose one of {choices}." in str(error.value)
    assert snapshot(model) == before


@pytest.mark.parametrize(("kind", "n"), [("compacter", 4), ("compacter", 8), ("phm", 12)])
def test_typical_values_of_n_fit_t5_base(kind, n):
    module = AdapterConfig.from_dict({"kind": kind, "n": n}).build(768, 768)
    y = torch.randn(2, 768)
    assert torch.equal(module(y), y)


@pytest.mark.parametrize(("description", "own", "shared", "count"), SETTINGS, ids=str)
def test_the_json_form_restores_the_configuration(description, own, shared, count):
    config = AdapterConfig.from_dict(description)
    assert AdapterConfig.from_dict(config.to_dict()) == config
