"""Linears of one input as one network of their stacked rows."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

import adapters
from adapters.factorized.layers import factorized_modules
from tests.adapters.models import batch_for, logits, tiny

STACK = {"target_modules": ["gate_proj", "up_proj"], "stack": [["up_proj", "gate_proj"]]}
LOW_RANK = STACK | {"format": "low_rank", "rank": 5}
CONFIGS = {
    "low_rank": LOW_RANK,
    "kronecker": STACK | {"first_shape": [12, 6], "factors": 3},
    "one row": STACK | {"first_shape": [1, 6], "factors": 3},
    "tensor_train": STACK | {"format": "tensor_train", "rank": 3, "d": 3, "frozen_cores": [1]},
    "queries, keys and values": {
        "target_modules": ["q", "k", "v"],
        "stack": [["q_proj", "k_proj", "v_proj"]],
        "format": "low_rank",
        "rank": 4,
    },
}


def stacked_weight(model, layer=0):
    mlp = model.model.layers[layer].mlp
    return torch.cat([mlp.up_proj.weight, mlp.gate_proj.weight]).detach().double()


def test_low_rank_is_the_truncated_svd_of_the_stacked_rows():
    model = tiny("llama")
    u, s, vh = np.linalg.svd(stacked_weight(model).numpy(), full_matrices=False)
    made = adapters.factorize(model, LOW_RANK)
    np.testing.assert_allclose(stacked_weight(made).numpy(), (u[:, :5] * s[:5]) @ vh[:5], atol=1e-6)
    mlp = made.model.layers[0].mlp
    assert sum(parameter.numel() for parameter in mlp.parameters()) == 5 * (24 + 2 * 48) + 24 * 48
    assert mlp.up_proj.live_cores()[0] is mlp.gate_proj.live_cores()[0]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_folders_copies_and_dense_weights(config, tmp_path):
    model = adapters.factorize(tiny("llama"), config)
    before = logits(model, "llama")
    assert torch.equal(logits(copy.deepcopy(model), "llama"), before)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, "llama"), before)
    assert {n: p.requires_grad for n, p in loaded.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    body = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in body.parameters()} == {torch.bfloat16}
    assert body(**batch_for("llama")).last_hidden_state.isfinite().all()
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(logits(adapters.densify(loaded), "llama"), before, rtol=0, atol=1e-5)
    assert not factorized_modules(loaded)


def test_all_linears_train_the_shared_core():
    model = adapters.factorize(tiny("llama"), LOW_RANK)
    ids = batch_for("llama")["input_ids"]
    model(input_ids=ids, labels=ids).loss.backward()
    mlp = model.model.layers[0].mlp
    (shared,) = mlp.gate_proj.live_cores()[:1]
    whole = shared.grad.clone()
    model.zero_grad()
    mlp.gate_proj.requires_grad_(False)
    assert whole.abs().max() > 0
    assert all(core.grad is None for core in mlp.up_proj.parameters())


def test_whitened_stacks_have_a_smaller_error_than_separate_networks_of_equal_size():
    """Weights with a common row space, as the report's last column compares."""
    model = tiny("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            basis = torch.randn(6, 24)
            for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
                linear.weight.copy_(torch.randn(48, 6) @ basis + 0.05 * torch.randn(48, 24))
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(3, 50, (4, 20), generator=generator) for _ in range(4)]
    plan = adapters.plan_factorization(model, LOW_RANK | {"rank": 6, "whiten": "full"}, batches[:3])
    for row in plan.report(batches[3:]).weights:
        assert row.path.endswith("mlp.{up_proj,gate_proj}")
        assert row.parameters == 6 * (24 + 2 * 48)
        assert row.error < 0.8 * row.low_rank_error


REFUSALS = {
    "one name": ({"stack": [["up_proj"]]}, ["'stack'", "two"]),
    "twice the same": ({"stack": [["up_proj", "up_proj"]]}, ["'stack'", "different"]),
    "unknown": ({"stack": [["up", "gate_proj"]]}, ["'stack'", "'up'", "up_proj"]),
    "not a target": ({"stack": [["up_proj", "q_proj"]]}, ["'stack'", "q_proj"]),
    "other inputs": (
        {"target_modules": ["up_proj", "down_proj"], "stack": [["up_proj", "down_proj"]]},
        ["'stack'", "(24, 48)"],
    ),
    "in two groups": ({"stack": [["up_proj", "gate_proj"]] * 2}, ["'stack'", "two groups"]),
    "scalars": ({"scalars": True}, ["'scalars'", "stack"]),
    "a rank of one of them": (
        {"rank_pattern": {"gate_proj": 4}},
        ["'rank_pattern'", "5 at", "up_proj", "4 at", "gate"],
    ),
    "two first shapes": (
        {"format": "kronecker", "rank": None, "first_shape": {"up_proj": [12, 6], "gate_proj": [6, 12]}},
        ["'first_shape'", "[12, 6] at", "[6, 12] at"],
    ),
}


@pytest.mark.parametrize(("fields", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_stacked_is_refused(fields, said, snapshot):
    model = tiny("llama")
    before = snapshot(model)
    with pytest.raises(adapters.ConfigurationError) as error:
        adapters.factorize(model, LOW_RANK | fields)
    for part in said:
        assert part in str(error.value)
    assert snapshot(model) == before


def test_a_pattern_that_gives_all_of_a_stack_one_rank():
    patterns = {"rank_pattern": {"(up|gate)_proj": 4}}, {"rank_pattern": {"up_proj": 5}}
    for pattern, rank in zip(patterns, (4, 5), strict=True):
        model = adapters.factorize(tiny("llama"), LOW_RANK | pattern)
        assert model.model.layers[0].mlp.gate_proj.ranks == (1, rank, 1)


def test_linears_with_different_inputs_are_found_by_the_calibration():
    model = tiny("gpt2", n_inner=24)
    config = {
        "target_modules": ["mlp.c_fc", "mlp.c_proj"],
        "stack": [["c_fc", "c_proj"]],
        "format": "low_rank",
        "rank": 3,
    }
    with pytest.raises(adapters.ConfigurationError, match="whose inputs differ"):
        adapters.factorize(model, config | {"whiten": "full"}, [batch_for("gpt2")])
