"""tt_lora and tt_single against dense algebra in float64, and the effect of each of their fields."""

import math

import pytest
import torch

import t3nsor as t3
from adapters import AdapterConfig, TensorTrainDelta, TensorTrainSingle

IN, OUT = 24, 48


def build(in_features=IN, out_features=OUT, kind="tt_lora", **fields):
    return AdapterConfig.from_dict({"kind": kind, **fields}).build(in_features, out_features)


def filled(module, std=0.5):
    """The module in float64 with random parameters."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, std)
    return module


def dense_bias(module, dense_of):
    bias = module.linear.bias
    if bias is None:
        return 0.0
    return dense_of(bias.cores)[:, 0] if isinstance(bias, t3.TTBias) else bias.detach()


CASES = [
    {"rank": 3},
    {"rank": [2, 5], "delta_bias": "dense"},
    {"rank": 2, "delta_bias": "tt", "scaling": 0.5},
    {"d": 1},
    {"d": 2, "rank": 4, "shape_mode": "reversed_out", "scaling": -2.0},
    {"d": 4, "rank": 2, "shape_mode": "mixed"},
    {"raw_shape": [[6, 8], [4, 6]], "rank": 5},
    {"rank": 3, "disabled_cores": [1], "frozen_cores": [0]},
]


@pytest.mark.parametrize("fields", CASES, ids=str)
def test_tt_lora_is_the_scaled_map_of_the_dense_matrix(fields, dense_of):
    module = filled(build(**fields))
    assert isinstance(module, TensorTrainDelta)
    s, T, c = module.scaling, dense_of(module.linear.cores), dense_bias(module, dense_of)
    assert s == fields.get("scaling", s)
    x = torch.randn(2, 3, IN, dtype=torch.float64)
    torch.testing.assert_close(module(x), s * (x @ T.T + c), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(module.delta_weight(), s * T, rtol=1e-12, atol=1e-12)
    if fields.get("delta_bias", "none") == "none":
        assert module.delta_bias() is None
    else:
        torch.testing.assert_close(module.delta_bias(), s * c, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "fields", [{"rank": 2}, {"rank": 3, "delta_bias": "dense", "scaling": 0.5}, {"delta_bias": "tt"}], ids=str
)
def test_tt_single_adds_its_delta_to_its_input(fields, dense_of):
    module = filled(build(IN, IN, kind="tt_single", **fields))
    assert isinstance(module, TensorTrainSingle)
    s, T, c = module.scaling, dense_of(module.linear.cores), dense_bias(module, dense_of)
    assert s == fields.get("scaling", s)
    y = torch.randn(2, 3, IN, dtype=torch.float64)
    torch.testing.assert_close(module(y), y + s * (y @ T.T + c), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("fields", CASES, ids=str)
def test_the_delta_starts_at_exactly_zero_and_has_a_gradient(fields):
    module = build(**fields)
    x = torch.randn(3, IN)
    y = module(x)
    assert torch.equal(y, torch.zeros(3, OUT))
    y.backward(torch.randn_like(y))
    assert any(core.grad is not None and core.grad.any() for core in module.linear.cores)


@pytest.mark.parametrize(
    ("fields", "shapes"),
    [
        # 24 = 2 3 4, 48 = 3 4 4; no rank beyond what its bond can use
        ({"rank": 5, "shape_mode": "ascending"}, [(1, 3, 2, 5), (5, 4, 3, 5), (5, 4, 4, 1)]),
        ({"rank": 100, "shape_mode": "ascending"}, [(1, 3, 2, 6), (6, 4, 3, 16), (16, 4, 4, 1)]),
        ({"rank": [2, 7]}, [(1, 3, 2, 2), (2, 4, 3, 7), (7, 4, 4, 1)]),
        ({"rank": 2, "d": 1}, [(1, 48, 24, 1)]),
        ({"rank": 2, "d": 2, "shape_mode": "ascending"}, [(1, 6, 4, 2), (2, 8, 6, 1)]),
        ({"rank": 2, "d": 4, "shape_mode": "ascending"}, [(1, 2, 2, 2), (2, 2, 2, 2), (2, 3, 2, 2), (2, 4, 3, 1)]),
        ({"rank": 2, "raw_shape": [[48, 1], [1, 24]]}, [(1, 48, 1, 2), (2, 1, 24, 1)]),
        ({"rank": 2, "shape_mode": "descending"}, [(1, 4, 4, 2), (2, 4, 3, 2), (2, 3, 2, 1)]),
        ({"rank": 2, "shape_mode": "mixed"}, [(1, 3, 2, 2), (2, 4, 4, 2), (2, 4, 3, 1)]),
        ({"rank": 2, "shape_mode": "reversed_out"}, [(1, 4, 2, 2), (2, 4, 3, 2), (2, 3, 4, 1)]),
        ({"rank": 2, "shape_mode": "in_only"}, [(1, 48, 2, 2), (2, 1, 3, 2), (2, 1, 4, 1)]),
        ({"rank": 2, "shape_mode": "out_only"}, [(1, 4, 1, 2), (2, 4, 1, 2), (2, 3, 24, 1)]),
    ],
    ids=str,
)
def test_rank_and_shape_fields_determine_the_core_shapes(fields, shapes):
    assert [tuple(core.shape) for core in build(**fields).linear.cores] == shapes


def test_tt_lora_has_the_cheapest_shape_by_default():
    shapes = [tuple(core.shape) for core in build(768, 3072, rank=4).linear.cores]
    rows, columns = t3.cheapest_shape(768, 3072, 3, 4)
    assert shapes == [(1, rows[0], columns[0], 4), (4, rows[1], columns[1], 4), (4, rows[2], columns[2], 1)]
    assert AdapterConfig.from_dict({"kind": "tt_lora"}).to_dict()["shape_mode"] == "cheapest"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "tt_single"},
        {"kind": "tt_adapter"},
        {"kind": "tt_lora", "rank": [4, 4]},
        {"kind": "tt_lora", "format": "tensor_ring"},
        {"kind": "tt_lora", "shared_cores": [1]},
        {"kind": "tt_lora", "disabled_cores": [1]},
        {"kind": "tt_lora", "core_activation": "gelu"},
    ],
    ids=str,
)
def test_the_default_shape_mode_is_ascending_in_all_other_cases(fields):
    assert AdapterConfig.from_dict(fields).to_dict()["shape_mode"] == "ascending"


@pytest.mark.parametrize(("init", "variance"), [("glorot", 2 / 3072), (0.05, 0.05**2)])
def test_init_sets_the_variance_of_the_matrix(init, variance, dense_of):
    config = AdapterConfig.from_dict({"kind": "tt_lora", "init": init, "rank": 8})
    linear = config.tt_linear(1536, 1536, zero=False)
    matrix = dense_of(linear.cores)
    assert matrix.var().item() == pytest.approx(variance, rel=0.35)  # a product of three random cores of rank 8
    started = config.build(1536, 1536).linear
    for drawn, core in zip(linear.cores[:2], started.cores[:2], strict=True):
        assert core.std().item() == pytest.approx(drawn.std().item(), rel=0.1)
    assert not started.cores[2].any()


def test_frozen_and_disabled_cores_have_no_gradient_and_do_not_change(dense_of):
    module = build(d=4, rank=2, frozen_cores=[0], disabled_cores=[2])
    start = [core.detach().clone() for core in module.linear.cores]
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        module(torch.randn(5, IN)).square().sum().add(module(torch.randn(5, IN)).sum()).backward()
        optimizer.step()
    moved = [not torch.equal(core, before) for core, before in zip(module.linear.cores, start, strict=True)]
    assert moved == [False, True, False, True]
    identity = torch.einsum("rs,mn->rmns", torch.eye(2), torch.eye(3, 2))
    torch.testing.assert_close(module.linear.cores[2].detach(), identity, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "function"), [("relu", torch.relu), ("tanh", torch.tanh)])
def test_core_activation_acts_between_the_cores(name, function):
    module = filled(build(d=2, rank=3, core_activation=name, scaling=1.0))
    assert not module.is_linear
    first, second = module.linear.cores
    x = torch.randn(5, IN, dtype=torch.float64)
    hidden = function(torch.einsum("bnN,mns->bmsN", x.reshape(5, 4, 6), first[0]))
    y = torch.einsum("bmrN,rMN->bmM", hidden, second[..., 0]).reshape(5, OUT)
    torch.testing.assert_close(module(x), y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("bias", "parameters"),
    [("none", 0), ("dense", 48), ("tt", 1 * 3 * 2 + 2 * 4 * 2 + 2 * 4 * 1)],
)
def test_the_bias_has_its_closed_form_count_and_starts_at_zero(bias, parameters):
    plain, module = build(rank=2), build(rank=2, delta_bias=bias)
    count = sum(p.numel() for p in module.parameters())
    assert count - sum(p.numel() for p in plain.parameters()) == parameters
    assert not module(torch.randn(3, IN)).any()
    module(torch.randn(3, IN)).sum().backward()
    if bias != "none":
        assert any(p.grad is not None and p.grad.any() for name, p in module.named_parameters() if "bias" in name)


def test_dropout_drops_entries_of_x_in_training_only():
    module = filled(build(rank=4, dropout=0.5))
    x = torch.ones(4000, IN, dtype=torch.float64)
    evaluated = module.eval()(x)
    torch.testing.assert_close(evaluated, x @ module.delta_weight().T, rtol=1e-11, atol=1e-11)
    trained = module.train()(x)
    assert not torch.allclose(trained, evaluated)
    deviation = 6 * (module.delta_weight().square().sum(1) / 4000).sqrt()  # Var of a kept entry scaled by 2 is 1
    assert ((trained.mean(0) - evaluated[0]).abs() < deviation).all()


def test_reset_parameters_redraws_in_place():
    module = build(rank=2, delta_bias="dense")
    parameters = list(module.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.fill_(math.pi)
    module.reset_parameters()
    assert [id(p) for p in module.parameters()] == [id(p) for p in parameters]
    assert not any((parameter == math.pi).any() for parameter in parameters)
    assert not module(torch.randn(3, IN)).any()
