"""What a factorization keeps, against dense algebra in float64 and the law of Marchenko and Pastur."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

import adapters
from adapters.factorized.report import gaussian_floor, parameter_totals
from tests.adapters.models import batch_for, tiny

CONFIG = {"first_shape": [12, 6], "factors": 3, "whiten": "kronecker"}


def batches(seed, count=4):
    generator = torch.Generator().manual_seed(seed)
    return [{"input_ids": torch.randint(3, 50, (2, 20), generator=generator)} for _ in range(count)]


def inputs_of(model, path, given):
    seen = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for batch in given:
        model(**batch)
    hook.remove()
    return torch.cat(seen).flatten(0, 1).double()


def test_the_measures_are_those_of_dense_algebra(snapshot):
    model = tiny("gpt2")
    before = snapshot(model)
    plan = adapters.plan_factorization(model, CONFIG, batches(1))
    report = plan.report(batches(2))
    assert snapshot(model) == before
    assert (report.calibration_tokens, report.held_out_tokens) == (160, 160)
    path = "transformer.h.0.mlp.c_proj"
    row = next(row for row in report.weights if row.path == path)
    weight = model.get_submodule(path).weight.detach().double().T  # (24, 96)
    seen, unseen = (inputs_of(model, path, batches(seed)) for seed in (1, 2))
    made = plan.apply().get_submodule(path).full().detach().double()
    assert row.parameters == 3 * (6 * 12 + 4 * 8)
    assert row.dense_parameters == 24 * 96
    assert row.kept == pytest.approx(1 - ((weight - made).norm() / weight.norm()).item() ** 2, abs=1e-6)
    assert row.error == pytest.approx(relative(weight, made, unseen), abs=1e-6)
    root = np.linalg.cholesky((seen.T @ seen / len(seen)).numpy())
    u, s, vh = np.linalg.svd(weight.numpy() @ root)
    rank = row.parameters // (24 + 96)
    low_rank = torch.from_numpy((u[:, :rank] * s[:rank]) @ vh[:rank] @ np.linalg.inv(root))
    assert row.low_rank_error == pytest.approx(relative(weight, low_rank, unseen), abs=1e-4)


def relative(weight, other, x):
    return (((weight - other) @ x.T).norm() / (weight @ x.T).norm()).item()


def test_the_floor_is_that_of_random_matrices():
    """The kept energy of the top half of a long Gaussian matrix's singular values, which are all equal, is a half."""
    assert gaussian_floor("tensor_train", ((1, 1, 4000, 4), (4, 8, 1, 1))) == pytest.approx(0.5, abs=0.03)
    square = gaussian_floor("tensor_train", ((1, 1, 300, 150), (150, 300, 1, 1)))
    s = np.linalg.svd(np.random.default_rng(0).standard_normal((300, 300)), compute_uv=False)
    assert square == pytest.approx((s[:150] ** 2).sum() / (s**2).sum(), abs=0.01)
    assert gaussian_floor("tensor_ring", ((2, 4, 3, 2), (2, 3, 4, 2))) < 1


def test_a_gaussian_weight_keeps_the_floor():
    model = torch.nn.Sequential(torch.nn.Linear(240, 120))
    torch.nn.init.normal_(model[0].weight)
    config = {"target_modules": ["0"], "first_shape": [20, 12], "factors": 20}
    (row,) = adapters.plan_factorization(model, config).report().weights
    assert row.kept == pytest.approx(row.floor, abs=0.01)
    assert row.error is row.low_rank_error is None


def test_totals_are_those_of_the_models():
    model = tiny("gpt2")
    before = parameter_totals(model)
    report = adapters.plan_factorization(model, CONFIG | {"whiten": "none"}).report()
    after = parameter_totals(adapters.factorize(copy.deepcopy(model), CONFIG | {"whiten": "none"}))
    assert report.totals == {name: (before[name], after[name]) for name in before}
    positions, tokens = (model.get_submodule(f"transformer.{name}").weight.numel() for name in ("wpe", "wte"))
    assert list(before.values()) == [before["all"], before["all"] - positions, before["all"] - positions - tokens]


EMBEDDING = {"target_modules": "embedding", "format": "low_rank", "rank": 4}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("config", [EMBEDDING, [EMBEDDING, CONFIG | {"whiten": "none"}]], ids=["alone", "with others"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_totals_with_a_factorized_embedding(name, config, tied):
    model = tiny(name, tie_word_embeddings=tied)
    before = parameter_totals(model)
    report = adapters.plan_factorization(model, config).report()
    after = parameter_totals(adapters.factorize(model, config))
    assert report.totals == {key: (before[key], after[key]) for key in before}
    key = "without embeddings and positions"
    assert (before[key] == after[key]) is (config is EMBEDDING)


def test_a_weight_of_zeros_has_no_shares():
    model = torch.nn.Sequential(torch.nn.Linear(6, 8))
    torch.nn.init.zeros_(model[0].weight)
    plan = adapters.plan_factorization(
        model, {"target_modules": ["0"], "format": "low_rank", "rank": 1}, [torch.randn(9, 6)]
    )
    (row,) = plan.report([torch.randn(9, 6)]).weights
    assert row.kept is row.error is row.low_rank_error is None


def test_on_the_meta_device_parameters_and_floors_are_known():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1))
    report = adapters.plan_factorization(model, {"first_shape": [1024, 256], "factors": 2}).report()
    assert [row.kept for row in report.weights] == [None, None]
    assert report.weights[0].floor == pytest.approx(report.weights[1].floor, abs=1e-3)
    assert report.totals["without positions"][0] == report.totals["all"][0] - 786_432


def test_it_prints_and_is_json():
    report = adapters.plan_factorization(tiny("llama"), CONFIG, batches(1)).report(batches(2))
    json.dumps(report.to_dict())
    text = str(report)
    for part in ("model.layers.1.mlp.down_proj", "6x12 4x4 rank 3", "floor", "without embeddings and positions", "160"):
        assert part in text
    assert "-" in str(adapters.plan_factorization(tiny("llama"), CONFIG, [batch_for("llama")]).report())
