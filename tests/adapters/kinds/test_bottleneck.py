"""Bottlenecks of every linear form against the formula in float64, and their fields by their effects."""

import pytest
import torch
import torch.nn.functional as F

from adapters import AdapterConfig, Bottleneck, ConfigurationError, TensorTrainAdapter

D = 24
KINDS = ["bottleneck", "low_rank", "phm", "compacter", "tt_adapter"]
NUMBERS = {"bottleneck": lambda k: D * k, "low_rank": lambda k: D + k}  # of one projection, its bias aside


def build(kind="bottleneck", **fields):
    n = {"n": 3} if kind in ("phm", "compacter") else {}
    return AdapterConfig.from_dict({"kind": kind, **n, **fields}).build(D, D)


def filled(module):
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return module


@pytest.mark.parametrize(("activation", "function"), [("relu", F.relu), ("silu", F.silu), ("gelu", F.gelu)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bottleneck_is_y_plus_up_of_activation_of_down(kind, activation, function, dense_of):
    module = filled(build(kind, reduction_factor=4, activation=activation))
    y = torch.randn(2, 5, D, dtype=torch.float64)
    if kind == "tt_adapter":
        assert isinstance(module, TensorTrainAdapter)
        expected = y + function(y @ dense_of(module.down.cores).T) @ dense_of(module.up.cores).T
    else:
        down, up = (p.weight if kind == "bottleneck" else p.full() for p in (module.down, module.up))
        hidden = function(y @ down.T + module.down.bias)
        expected = y + hidden @ up.T + module.up.bias
    torch.testing.assert_close(module(y), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bottleneck_starts_as_the_identity_and_learns(kind):
    module = build(kind, reduction_factor=4)
    y = torch.randn(3, D)
    assert torch.equal(module(y), y)
    assert not module.is_linear
    module(y).square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in module.up.parameters())


@pytest.mark.parametrize(
    ("fields", "width"),
    [
        ({"reduction_factor": 4}, 6),
        ({"reduction_factor": 7}, 3),
        ({"reduction_factor": 1}, 24),
        ({"expansion_factor": 2}, 48),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_reduction_and_expansion_factors_set_the_width(kind, fields, width):
    module = build(kind, **fields)
    assert module(torch.randn(2, D)).shape == (2, D)
    assert (module.down.in_features, module.down.out_features) == (D, width)
    assert (module.up.in_features, module.up.out_features) == (width, D)
    if kind in NUMBERS:
        assert sum(p.numel() for p in module.parameters()) == 2 * NUMBERS[kind](width) + width + D


@pytest.mark.parametrize("kind", KINDS)
def test_reduction_by_32_is_the_default(kind):
    config = AdapterConfig.from_dict({"kind": kind})
    assert (config.reduction_factor, config.expansion_factor) == (32, None)
    assert config.width(768) == 24


@pytest.mark.parametrize("kind", KINDS)
def test_a_reduction_to_zero_features_raises_an_error(kind):
    with pytest.raises(ConfigurationError, match=rf"'reduction_factor' of adapter kind '{kind}'.* 24 features.* 32"):
        build(kind, reduction_factor=32)


@pytest.mark.parametrize(("reduction_factor", "rows", "columns"), [(4, (2, 3), (4, 6)), (1, (2, 12), (4, 6))])
def test_raw_shape_is_that_of_down_and_mirrored_for_up(reduction_factor, rows, columns):
    raw_shape = [list(rows), list(columns)]
    module = build("tt_adapter", reduction_factor=reduction_factor, raw_shape=raw_shape, rank=2)
    assert module.down.raw_shape == (rows, columns)
    assert module.up.raw_shape == (columns, rows)


@pytest.mark.parametrize(("rank", "parameters"), [(2, 224), (4, 640), (8, 2048)])
def test_a_projection_768_to_24_has_the_published_parameter_count(rank, parameters):
    module = AdapterConfig.from_dict({"kind": "tt_adapter", "rank": rank}).build(768, 768)
    assert isinstance(module, Bottleneck)
    assert sum(p.numel() for p in module.down.parameters()) == parameters
    assert sum(p.numel() for p in module.up.parameters()) == parameters


def test_core_fields_apply_to_both_projections():
    module = build("tt_adapter", reduction_factor=4, frozen_cores=[0], delta_bias="dense", core_activation="tanh")
    for projection in (module.down, module.up):
        assert [core.requires_grad for core in projection.cores] == [False, True, True]
        assert projection.bias.shape == (projection.out_features,)
        assert projection.core_activation == "tanh"


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_outputs_are_computed_in_float32(kind):
    module = build(kind, reduction_factor=4)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    y = torch.randn(5, D).to(torch.bfloat16)
    result = module(y)
    assert result.dtype == torch.bfloat16
    change = module(y.float()) - y.float()
    assert torch.equal(result, y + change.to(torch.bfloat16))


def test_a_dense_down_projection_starts_glorot_normal_with_bias_zero():
    module = AdapterConfig.from_dict({"kind": "bottleneck", "reduction_factor": 2}).build(768, 768)
    assert module.down.weight.std().item() == pytest.approx((2 / (768 + 384)) ** 0.5, rel=0.02)
    assert not module.down.bias.any()
    assert not module.up.weight.any()
