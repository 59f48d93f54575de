"""Initialization from the principal part of a weight, against the SVD of numpy; step 0 equals the base model."""

import copy
import math
import re

import numpy as np
import pytest
import torch

import adapters
from adapters import AdapterConfig, ConfigurationError
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

PRINCIPAL = {"kind": "tt_lora", "init": "principal", "rank": 3}
SETTINGS = {
    "train": PRINCIPAL,
    "scaled, with a bias": {**PRINCIPAL, "scaling": -0.5, "delta_bias": "dense", "target_modules": ["q", "wo"]},
    "low rank": {**PRINCIPAL, "modes": ["in", "out"]},
    "ring": {**PRINCIPAL, "format": "tensor_ring", "rank": 2},
    "ranks by place": {**PRINCIPAL, "rank_pattern": {"wi": 2}},
}
every_setting = pytest.mark.parametrize("name", SETTINGS)


def deltas(model):
    """The adapters with their base weights."""
    hosts = [module for module in model.modules() if getattr(module, "beside", None)]
    return [(host.beside["tt_lora"].active, host.base_tensor("weight")) for host in hosts]


@every_setting
def test_step_0_equals_the_base_model_bit_for_bit(tiny_t5, batch, logits, name):
    base, model = tiny_t5(), adapters.attach(tiny_t5(), SETTINGS[name])
    assert torch.equal(logits(model), logits(base))
    with adapters.merged(model):
        assert torch.equal(logits(model), logits(base))
    losses = [m.train()(**batch).loss for m in (model, base.requires_grad_(False))]
    assert torch.equal(*losses)
    for delta, weight in deltas(model):
        assert torch.equal(delta.delta_weight(), torch.zeros_like(weight))
        assert delta.linear.full().any()


@pytest.mark.parametrize(("rank", "scaling"), [(1, 1.0), (3, -0.5), (7, 4.0)])
def test_low_rank_modes_start_at_the_truncated_svd(tiny_t5, rank, scaling):
    model = adapters.attach(tiny_t5(), {**SETTINGS["low rank"], "rank": rank, "scaling": scaling})
    for delta, weight in deltas(model):
        u, s, v = np.linalg.svd(weight.double().numpy())
        nearest = torch.from_numpy((u[:, :rank] * s[:rank]) @ v[:rank])
        torch.testing.assert_close(scaling * delta.linear.full().double(), nearest, rtol=1e-4, atol=1e-5)


def test_a_train_of_full_rank_starts_at_the_weight(tiny_t5):
    for delta, weight in deltas(adapters.attach(tiny_t5(), {**PRINCIPAL, "rank": 1000, "scaling": 2.0})):
        torch.testing.assert_close(2.0 * delta.linear.full(), weight, rtol=1e-4, atol=1e-5)


@every_setting
def test_the_trained_model_has_the_dense_delta_t_minus_t_0(tiny_t5, trained, logits, batch, dense_of, name):
    base = tiny_t5().double()
    model = trained(adapters.attach(tiny_t5(), SETTINGS[name])).double()
    changed = {}
    for path, module in model.named_modules():
        if getattr(module, "beside", None):
            delta = module.beside["tt_lora"].active
            change = delta.scaling * (dense_of(delta.linear.cores) - dense_of(delta.origin.cores))
            changed[f"{path}.weight"] = base.get_parameter(f"{path}.weight").detach() + change
    if SETTINGS[name].get("delta_bias") is None:
        with torch.no_grad():
            expected = torch.func.functional_call(base, changed, kwargs=batch).logits
        torch.testing.assert_close(logits(model), expected, rtol=1e-9, atol=1e-9)
    unmerged = logits(model)
    assert not torch.allclose(unmerged, logits(base))
    with adapters.merged(model):
        torch.testing.assert_close(logits(model), unmerged, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_pissa(tiny_t5, batch):
    """As in PiSSA: with W - B_0 A_0 frozen, the gradients of B and A are G A_0^T and B_0^T G with G that of W."""
    model, base = adapters.attach(tiny_t5(), SETTINGS["low rank"]).double(), tiny_t5().double()
    model(**batch).loss.backward()
    base(**batch).loss.backward()
    for path, module in model.named_modules():
        if getattr(module, "beside", None):
            a, b = (core.detach() for core in module.beside["tt_lora"].active.linear.cores)
            gradients = [core.grad for core in module.beside["tt_lora"].active.linear.cores]
            g = base.get_parameter(f"{path}.weight").grad
            torch.testing.assert_close(gradients[0][0, 0], g.T @ b[:, :, 0, 0].T, rtol=1e-8, atol=1e-12)
            torch.testing.assert_close(gradients[1][:, :, 0, 0], (g @ a[0, 0]).T, rtol=1e-8, atol=1e-12)


def test_only_t_trains_and_t_0_counts_as_frozen(tiny_t5):
    counts = adapters.summary(adapters.attach(tiny_t5(), PRINCIPAL)).groups["tt_lora"]
    plain = adapters.summary(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 3})).groups["tt_lora"]
    assert counts.trainable == plain.trainable
    assert counts.parameters == 2 * plain.parameters


@pytest.mark.parametrize("name", ["ring", "ranks by place"])
def test_saved_adapters_models_and_copies_restore_it(tiny_t5, trained, logits, tmp_path, name):
    model = trained(adapters.attach(tiny_t5(), SETTINGS[name]))
    adapters.save(model, tmp_path / "adapter")
    model.save_pretrained(tmp_path / "whole")
    others = {
        "loaded": adapters.load(tiny_t5(), tmp_path / "adapter"),
        "copied": copy.deepcopy(model),
        "whole": T5ForConditionalGeneration.from_pretrained(tmp_path / "whole").eval(),
    }
    for origin, other in others.items():
        assert torch.equal(logits(other), logits(model)), origin
        trains = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (other, model)]
        assert trains[0] == trains[1], origin


def test_a_model_created_on_the_meta_device_starts_from_the_loaded_weights(tiny_t5, logits, tmp_path):
    base = tiny_t5()
    base.save_pretrained(tmp_path)
    config = T5Config.from_pretrained(tmp_path)
    config.adapters = [{"task": None, "config": AdapterConfig.from_dict(SETTINGS["low rank"]).to_dict()}]
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, config=config).eval()
    assert torch.equal(logits(model), logits(base))
    attached = adapters.attach(tiny_t5(), SETTINGS["low rank"])
    for (delta, _), (other, _) in zip(deltas(model), deltas(attached), strict=True):
        assert torch.equal(delta.linear.full(), other.linear.full())
        assert torch.equal(delta.origin.full(), other.origin.full())


def test_it_starts_from_the_original_weight_of_a_merged_model(tiny_t5, trained):
    plain = adapters.attach(tiny_t5(), SETTINGS["low rank"], "b")
    model = trained(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2}, "a"))
    adapters.set_active_task(model, "a")
    adapters.merge(model)
    adapters.attach(model, SETTINGS["low rank"], "b")
    for path, module in plain.named_modules():
        if getattr(module, "beside", None):
            other = model.get_submodule(path).beside["tt_lora_2"].tasks["b"]
            assert torch.equal(other.linear.full(), module.beside["tt_lora"].tasks["b"].linear.full())


def test_step_0_equals_a_bfloat16_base_whose_weight_is_unchanged(tiny_t5, logits):
    base, model = tiny_t5().to(torch.bfloat16), adapters.attach(tiny_t5().to(torch.bfloat16), PRINCIPAL)
    assert torch.equal(logits(model), logits(base))
    assert all(delta.origin.cores[0].dtype == torch.float32 for delta, _ in deltas(model))


@pytest.mark.parametrize("name", ["train", "scaled, with a bias"])
@pytest.mark.parametrize("autocast", [False, True])
def test_in_half_precision_only_the_difference_is_rounded(tiny_t5, trained, name, autocast):
    """After steps as small as 0.1 % of T, the two products in bfloat16 would differ by nothing but their rounding."""
    for delta, _ in deltas(trained(adapters.attach(tiny_t5(), SETTINGS[name]), std=1e-4)):
        x = torch.randn(2, 5, delta.linear.in_features).bfloat16()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            change = delta(x.float() if autocast else x)
        assert change.dtype == torch.bfloat16
        expected = x.double() @ delta.delta_weight().double().T
        if (bias := delta.delta_bias()) is not None:
            expected = expected + bias
        assert (change - expected).norm() < 2**-8 * expected.norm()


def test_both_chains_use_the_same_dropout_mask(tiny_t5):
    model = adapters.attach(tiny_t5(), {**PRINCIPAL, "dropout": 0.5}).train()
    for delta, _ in deltas(model):
        x = torch.randn(2, 5, delta.linear.in_features)
        assert not delta(x).any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_raises_an_error_with_its_path(tiny_t5, snapshot, value):
    model, path = tiny_t5(), "decoder.block.1.layer.2.DenseReluDense.wo"
    model.get_parameter(f"{path}.weight").data[0, 0] = value
    before = snapshot(model)
    with pytest.raises(ConfigurationError, match=rf"'init'.*'principal' beside {re.escape(path)}.*must be finite"):
        adapters.attach(model, PRINCIPAL)
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"zero_core": 1}, ["'zero_core'", "1"]),
        ({"frozen_cores": [0]}, ["'frozen_cores'", "[0]"]),
        ({"disabled_cores": [1]}, ["'disabled_cores'", "[1]"]),
        ({"shared_cores": [2]}, ["'shared_cores'", "[2]"]),
        ({"core_activation": "gelu"}, ["'core_activation'", "gelu"]),
        ({"modes": ["in", "layer", "out"]}, ["'modes'", "layer"]),
        ({"format": "tensor_basis"}, ["'format'", "tensor_basis", "tensor_ring"]),
        ({"scaling": 0.0}, ["'scaling'", "0"]),
        ({"kind": "tt_single"}, ["'init'", "'principal'"]),
        ({"kind": "tt_adapter"}, ["'init'", "'principal'"]),
    ],
    ids=str,
)
def test_unsupported_fields_raise_an_error(fields, named):
    with pytest.raises(ConfigurationError) as error:
        AdapterConfig.from_dict({**PRINCIPAL, **fields})
    assert all(name in str(error.value) for name in named)
