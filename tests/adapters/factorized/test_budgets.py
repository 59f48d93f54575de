"""Budgets, uniform and by error, and the search for a shape."""

import itertools
from dataclasses import replace

import pytest
import torch

import adapters
import t3nsor as t3
from adapters.factorized.budgets import allocate
from adapters.factorized.layers import NetworkSpec, factorized_modules, rank_within
from tests.adapters.models import tiny


def batches(count=6):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 50, (4, 20), generator=generator) for _ in range(count)]


@pytest.fixture
def uneven():
    """A Llama whose second layer's weights are of rank 3."""
    model = tiny("llama")
    with torch.no_grad():
        for linear in (m for m in model.model.layers[1].mlp.children() if isinstance(m, torch.nn.Linear)):
            u, s, vh = torch.linalg.svd(linear.weight, full_matrices=False)
            linear.weight.copy_((u[:, :3] * s[:3]) @ vh[:3] + 1e-3 * linear.weight)
    return model


CONFIGS = {
    "low_rank": {"format": "low_rank", "budget": 0.5},
    "kronecker": {"first_shape": [12, 6], "budget": 0.3},
    "tensor_train": {"format": "tensor_train", "d": 3, "budget": 0.4},
    "tensor_ring": {"format": "tensor_ring", "d": 2, "budget": 0.4},
    "scalars": {"format": "low_rank", "budget": 0.5, "scalars": True},
    "stacked": {
        "target_modules": ["gate", "in"],
        "stack": [["gate_proj", "up_proj"]],
        "format": "low_rank",
        "budget": 0.5,
    },
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_uniform_budget_is_spent_as_far_as_one_more_rank_allows(config):
    for target, _ in adapters.plan_factorization(tiny("llama"), config).started:
        spec, allowed = target.spec, config["budget"] * target.size[0] * target.size[1]
        more = t3.FORMATS[spec.format].resolve_ranks(spec.raw_shape, max(spec.ranks) + 1)
        assert spec.parameters <= allowed < replace(spec, ranks=tuple(more)).parameters


def test_the_largest_rank_within_a_number_of_parameters():
    shape = ((4, 3), (6, 4))
    counts = [NetworkSpec("Linear", shape, (1, rank, 1)).parameters for rank in range(1, 13)]
    for parameters in range(counts[-1] + 50):
        expected = sum(count <= parameters for count in counts)
        assert rank_within("tensor_train", shape, max(parameters, 1)) == expected


def test_an_allocation_is_the_best_of_all():
    """Against every choice of ranks within the budget."""
    generator = torch.Generator().manual_seed(1)
    gains = [torch.rand(5, generator=generator).sort(descending=True).values for _ in range(3)]
    for costs in ([2, 2, 2], [1, 1, 1]):
        chosen = allocate(gains, costs, 9 * costs[0])
        ranks = [r for r in itertools.product(range(1, 6), repeat=3) if sum(r) <= 9]
        best = max(ranks, key=lambda r: sum(g[:k].sum().item() for g, k in zip(gains, r, strict=True)))
        assert chosen == list(best)
    assert sum(rank * cost for rank, cost in zip(allocate(gains, [3, 5, 7], 40), [3, 5, 7], strict=True)) <= 40


@pytest.mark.parametrize("whiten", ["none", "full"])
def test_a_budget_by_error_beats_a_uniform_one(uneven, whiten):
    given = batches()
    errors, parameters = {}, {}
    for allocation in ("uniform", "error"):
        config = {"format": "low_rank", "budget": 0.5, "whiten": whiten, "allocation": allocation}
        report = adapters.plan_factorization(uneven, config, given[:4]).report(given[4:])
        errors[allocation] = sum(weight.error**2 for weight in report.weights)
        parameters[allocation] = sum(weight.parameters for weight in report.weights)
        dense = sum(weight.dense_parameters for weight in report.weights)
    assert errors["error"] < 0.7 * errors["uniform"]
    assert parameters["error"] <= 0.5 * dense
    assert parameters["error"] >= 0.9 * parameters["uniform"]


@pytest.mark.parametrize("whiten", ["none", "full"])
def test_a_budget_by_error_gives_a_weight_of_zeros_the_least_rank(whiten):
    model = tiny("llama")
    torch.nn.init.zeros_(model.model.layers[0].mlp.down_proj.weight)
    config = {"format": "low_rank", "budget": 0.9, "whiten": whiten, "allocation": "error"}
    started = adapters.plan_factorization(model, config, None if whiten == "none" else batches()).started
    ranks = {target.name: target.spec.ranks[1] for target, _ in started}
    assert ranks.pop("model.layers.0.mlp.down_proj") == 1
    assert min(ranks.values()) > 10


@pytest.mark.parametrize("whiten", ["kronecker", "full"])
def test_a_searched_shape_is_never_worse_than_whitened_low_rank(whiten):
    given = batches(3)
    model = tiny("llama")
    config = {"format": "searched", "budget": 0.3, "whiten": whiten}
    plan = adapters.plan_factorization(model, config, given)
    for weight in plan.report(given).weights:
        assert weight.error <= weight.low_rank_error + 1e-6
        assert weight.parameters <= 0.3 * weight.dense_parameters
    assert len(factorized_modules(plan.apply())) == 6


def test_a_sum_of_kronecker_products_is_found_by_the_search():
    model = torch.nn.Sequential(torch.nn.Linear(24, 48, bias=False))
    products = [torch.einsum("ij,kl->ikjl", torch.randn(12, 6), torch.randn(4, 4)).reshape(48, 24) for _ in range(2)]
    with torch.no_grad():
        model[0].weight.copy_(sum(products))
    x = torch.randn(100, 24)
    config = {"target_modules": ["0"], "format": "searched", "budget": 0.2, "whiten": "kronecker"}
    (weight,) = adapters.plan_factorization(model, config, [x]).report([x]).weights
    assert weight.shape == "12x6 4x4 rank 2"
    assert weight.error < 1e-5
    assert weight.low_rank_error > 0.1


def test_a_search_with_full_whitening_improves_what_it_finds():
    model = torch.nn.Sequential(torch.nn.Linear(24, 48, bias=False))
    products = [torch.einsum("ij,kl->ikjl", torch.randn(12, 6), torch.randn(4, 4)).reshape(48, 24) for _ in range(2)]
    with torch.no_grad():
        model[0].weight.copy_(sum(products) + torch.randn(48, 24))
    x = torch.randn(100, 24) @ torch.randn(24, 24)
    formats = {
        "searched": {"format": "searched", "budget": 0.2},
        "given": {"format": "kronecker", "first_shape": [12, 6], "factors": 2},
    }
    error = {}
    for name, config in formats.items():
        for whiten in ("kronecker", "full"):
            given = {"target_modules": ["0"], "whiten": whiten} | config
            (weight,) = adapters.plan_factorization(model, given, [x]).report([x]).weights
            error[name, whiten] = weight.error
    assert error["searched", "full"] == pytest.approx(error["given", "full"], rel=1e-3)
    assert error["given", "full"] < 0.95 * error["given", "kronecker"]


def test_on_the_meta_device_a_search_is_low_rank():
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(24, 48))
    config = {"target_modules": ["0"], "format": "searched", "budget": 0.5, "whiten": "full"}
    assert adapters.factorize(model, config)[0].ranks == (1, 8, 1)


REFUSALS = {
    "too small": ({"format": "low_rank", "budget": 0.01}, ["'budget'", "0.0625", "0.01"]),
    "no share": ({"format": "low_rank", "budget": 1.5}, ["'budget'", "1.5"]),
    "with a rank": ({"format": "low_rank", "budget": 0.5, "rank": 3}, ["'budget'", "rank"]),
    "with a pattern": (
        {"format": "low_rank", "budget": 0.5, "rank_pattern": {"up_proj": 3}},
        ["'budget'", "rank_pattern"],
    ),
    "by error without": ({"format": "low_rank", "rank": 3, "allocation": "error"}, ["'budget'", "required"]),
    "by error in a train": ({"format": "tensor_train", "budget": 0.5, "allocation": "error"}, ["'allocation'"]),
    "with a shape by the rank": (
        {"format": "tensor_train", "budget": 0.5, "shape_mode": "cheapest"},
        ["'shape_mode'", "'cheapest' with a budget"],
    ),
    "a search without a budget": ({"format": "searched", "whiten": "full"}, ["'budget'", "required"]),
    "a search without whitening": ({"format": "searched", "budget": 0.5}, ["'whiten'", "required"]),
    "a search with a rank": (
        {"format": "searched", "rank": 3, "budget": 0.5, "whiten": "full"},
        ["'rank'", "searched"],
    ),
    "a search without calibration": (
        {"format": "searched", "budget": 0.5, "whiten": "full"},
        ["'whiten'", "calibration"],
    ),
}


@pytest.mark.parametrize(("config", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused(config, said):
    with pytest.raises(adapters.ConfigurationError) as error:
        adapters.factorize(tiny("llama"), config)
    for part in said:
        assert part in str(error.value)
