"""The layer-norm family: from frozen to full, each against x / rms(x) times a dense vector in float64."""

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5LayerNorm

import adapters
from adapters import AdapterConfig, ConfigurationError
from third_party.models.t5 import T5ForConditionalGeneration

D, EPS = 24, 1e-6


def build(kind, weight=None, **fields):
    weight = 1 + 0.3 * torch.randn(D) if weight is None else weight
    return AdapterConfig.from_dict({"kind": kind, **fields}).build(weight, EPS)


def rms_norm(x, weight):
    return weight * x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def filled(module):
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return module


def test_scale_norm_has_one_parameter_for_all_features():
    norm = filled(build("scale_norm"))
    x = torch.randn(2, 5, D, dtype=torch.float64)
    expected = rms_norm(x, norm.g.detach() / D**0.5)
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.dense_weight(), (norm.g / D**0.5).expand(D))
    assert [p.shape for p in norm.parameters()] == [()]


def test_scale_norm_starts_at_the_mean_of_the_pretrained_weight():
    weight = 1 + torch.randn(D)
    start = build("scale_norm", weight).dense_weight()
    torch.testing.assert_close(start, weight.mean().expand(D))


@pytest.mark.parametrize("fields", [{}, {"rank": 2, "d": 2}, {"rank": [2, 3]}, {"raw_shape": [4, 6]}], ids=str)
def test_the_weight_of_tt_layer_norm_is_a_tt_vector(fields, dense_of):
    norm = filled(build("tt_layer_norm", **fields))
    weight = dense_of(norm.cores)[:, 0]
    x = torch.randn(2, 5, D, dtype=torch.float64)
    torch.testing.assert_close(norm(x), rms_norm(x, weight), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(norm.dense_weight(), weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "shapes"),
    [
        ({}, [(1, 2, 1, 2), (2, 3, 1, 4), (4, 4, 1, 1)]),  # 24 = 2 3 4, rank 4 cut to 2 at the first bond
        ({"rank": 1}, [(1, 2, 1, 1), (1, 3, 1, 1), (1, 4, 1, 1)]),
        ({"rank": [2, 3]}, [(1, 2, 1, 2), (2, 3, 1, 3), (3, 4, 1, 1)]),
        ({"d": 2, "rank": 3}, [(1, 4, 1, 3), (3, 6, 1, 1)]),
        ({"raw_shape": [8, 3], "rank": 3}, [(1, 8, 1, 3), (3, 3, 1, 1)]),
    ],
    ids=str,
)
def test_rank_and_shape_fields_determine_the_core_shapes(fields, shapes):
    assert [tuple(core.shape) for core in build("tt_layer_norm", **fields).cores] == shapes


def test_the_pretrained_start_is_exact_at_full_rank_and_the_best_approximation_below():
    weight = 1 + torch.randn(D)
    exact = build("tt_layer_norm", weight, rank=100)
    torch.testing.assert_close(exact.dense_weight(), weight, rtol=1e-5, atol=1e-6)
    near = build("tt_layer_norm", weight, rank=2, d=2)
    left, singular, right = torch.linalg.svd(weight.double().reshape(4, 6), full_matrices=False)
    best = (left[:, :2] * singular[:2] @ right[:2]).reshape(-1)
    torch.testing.assert_close(near.dense_weight().double(), best, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"disabled_cores": [0]}, {"disabled_cores": [1, 2]}, {"rank": 1}], ids=str)
def test_init_ones_is_exactly_ones(fields):
    norm = build("tt_layer_norm", init="ones", **fields)
    assert torch.equal(norm.dense_weight(), torch.ones(D))


def test_a_disabled_core_makes_the_weight_constant_along_its_factor_and_a_frozen_core_does_not_change():
    norm = build("tt_layer_norm", init="ones", frozen_cores=[0], disabled_cores=[1], rank=3)
    start = [core.detach().clone() for core in norm.cores]
    optimizer = torch.optim.SGD([p for p in norm.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        norm(torch.randn(9, D)).mul(torch.randn(9, D)).sum().backward()
        optimizer.step()
    moved = [not torch.equal(core, before) for core, before in zip(norm.cores, start, strict=True)]
    assert moved == [False, False, True]
    weight = norm.dense_weight().reshape(2, 3, 4)
    torch.testing.assert_close(weight, weight[:, :1].expand(2, 3, 4))
    assert weight.std() > 1e-3


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"raw_shape": [5, 5]}, ["'raw_shape'", "[5, 5]", "24"]),
        ({"rank": [9, 2]}, ["'rank'", "[9, 2]"]),
    ],
)
def test_shapes_and_ranks_that_do_not_fit_the_weight_raise_an_error(fields, named):
    with pytest.raises(ConfigurationError) as error:
        build("tt_layer_norm", **fields)
    assert all(name in str(error.value) for name in named)


@pytest.mark.parametrize(
    ("description", "per_norm"),
    [
        ({"kind": "layer_norm", "trainable": False}, 0),
        ({"kind": "scale_norm"}, 1),
        ({"kind": "tt_layer_norm", "rank": 1}, 2 + 3 + 4),
        ({"kind": "tt_layer_norm", "rank": 2}, 2 * 2 + 2 * 3 * 2 + 2 * 4),
        ({"kind": "layer_norm"}, D),
    ],
    ids=str,
)
def test_parameter_counts_of_the_family(tiny_t5, description, per_norm):
    model = adapters.attach(tiny_t5(), description)
    norms = 2 * 2 + 2 * 3 + 2
    assert adapters.summary(model).total.trainable == norms * per_norm


def test_layer_norm_selects_norms_by_sublayer_stack_and_layer(tiny_t5):
    def trainable(**fields):
        model = adapters.attach(tiny_t5(), {"kind": "layer_norm", **fields})
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    assert trainable(sublayers=["final"]) == {"encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight"}
    assert trainable(sublayers=["cross_attention"], layers=[1]) == {"decoder.block.1.layer.1.layer_norm.weight"}
    assert trainable(stacks=["encoder"], layers=[0]) == {
        "encoder.block.0.layer.0.layer_norm.weight",
        "encoder.block.0.layer.1.layer_norm.weight",
    }


def test_the_later_configuration_of_a_norm_wins(tiny_t5):
    last = {"kind": "layer_norm", "trainable": False, "sublayers": ["final"]}
    model = adapters.attach(tiny_t5(), [{"kind": "layer_norm"}, last])
    assert not model.encoder.final_layer_norm.weight.requires_grad
    assert model.encoder.block[0].layer[0].layer_norm.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["tt_layer_norm", "scale_norm"])
def test_a_model_loaded_in_16_bits_runs_with_replaced_norms(tiny_t5, tmp_path, logits, kind, dtype):
    """transformers keeps T5's wo in float32, so that the norms get a float32 input and give one of 16 bits."""
    tiny_t5().save_pretrained(tmp_path)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
    before = logits(model)
    adapters.attach(model, {"kind": kind})
    after = logits(model)
    assert after.dtype == before.dtype
    assert torch.isfinite(after).all()
    if kind == "tt_layer_norm":
        assert (after - before).float().abs().max() < 0.05 * before.float().abs().max()


def test_a_replaced_norm_keeps_its_weight_class_and_name(tiny_t5):
    model = tiny_t5()
    before = model.encoder.final_layer_norm.weight
    adapters.attach(model, {"kind": "scale_norm"})
    norm = model.encoder.final_layer_norm
    assert isinstance(norm, T5LayerNorm)
    assert norm.weight is before
    assert not norm.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_have_the_dtype_of_x_and_adapters_are_float32(tiny_t5, dtype):
    model = adapters.attach(tiny_t5().to(dtype), [{"kind": "tt_layer_norm"}])
    norm = model.encoder.final_layer_norm
    assert norm(torch.randn(3, D, dtype=dtype)).dtype == dtype
    assert {core.dtype for core in norm.active_adapter().cores} == {torch.float32}
    adapters.merge(model)
    assert norm.weight.dtype == dtype
    torch.testing.assert_close(norm.weight.float(), norm.active_adapter().dense_weight().to(dtype).float())
