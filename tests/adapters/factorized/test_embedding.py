"""The embedding as a network, which a tied output projection computes with too."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

import adapters
from adapters.factorized.layers import factorized_modules
from tests.adapters.models import batch_for, logits, tiny

LOW_RANK = {"target_modules": "embedding", "format": "low_rank", "rank": 8}
CONFIGS = {
    "low_rank": LOW_RANK,
    "kronecker": {"target_modules": "embedding", "first_shape": [10, 6], "factors": 4},
    "tensor_train": {
        "target_modules": "embedding",
        "format": "tensor_train",
        "raw_shape": [[5, 10], [4, 6]],
        "rank": 5,
    },
    "with the feed-forward weights": [LOW_RANK, {"first_shape": [12, 6], "factors": 3}],
}
TIED = {"gpt2": {}, "llama": {"tie_word_embeddings": True}}


@pytest.fixture(params=TIED)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return tiny(name, **TIED[name])


def table_of(model):
    return model.get_input_embeddings().weight.detach().double().numpy()


def test_low_rank_is_the_truncated_svd_in_both_places(model, name):
    u, s, vh = np.linalg.svd(table_of(model), full_matrices=False)
    expected = (u[:, :8] * s[:8]) @ vh[:8]
    dense = copy.deepcopy(model)
    with torch.no_grad():
        dense.get_input_embeddings().weight.copy_(torch.from_numpy(expected))
    before = sum(parameter.numel() for parameter in model.parameters())
    adapters.factorize(model, LOW_RANK)
    np.testing.assert_allclose(table_of(model), expected, atol=1e-6)
    torch.testing.assert_close(logits(model, name), logits(dense, name))
    assert before - sum(parameter.numel() for parameter in model.parameters()) == 50 * 24 - 8 * (50 + 24)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_folders_copies_and_dense_weights(model, name, config, tmp_path):
    adapters.factorize(model, config)
    before = logits(model, name)
    assert torch.equal(logits(copy.deepcopy(model), name), before)
    model.save_pretrained(tmp_path / "factorized")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "factorized")
    assert torch.equal(logits(loaded, name), before)
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())
    loaded.generate(batch_for(name)["input_ids"], max_new_tokens=2, do_sample=False)
    assert AutoModel.from_pretrained(tmp_path / "factorized")(**batch_for(name)).last_hidden_state.isfinite().all()
    adapters.densify(loaded)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    loaded.save_pretrained(tmp_path / "dense")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert not factorized_modules(plain)
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    torch.testing.assert_close(logits(plain, name), before, rtol=0, atol=1e-5 * before.abs().max().item())


def test_both_places_train_the_same_cores(model, name):
    adapters.factorize(model, LOW_RANK)
    ids = batch_for(name)["input_ids"]
    model(input_ids=ids, labels=ids).loss.backward()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    for a, b in zip(embedding.live_cores(), head.live_cores(), strict=True):
        assert a is b
        assert a.grad.abs().max() > 0
    assert not list(head.parameters())


def test_the_calibration_weighs_rows_and_directions(model, name):
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(3, 12, (4, 20), generator=generator) for _ in range(3)]
    seen = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    hook.remove()
    x = torch.cat(seen).flatten(0, 1).double().numpy()
    root = np.linalg.cholesky(x.T @ x / len(x))
    counts = np.bincount(torch.cat(batches).flatten().numpy(), minlength=50)
    rows = np.sqrt(counts / counts[counts > 0].min() + 0.1)[:, None]
    u, s, vh = np.linalg.svd(rows * (table_of(model) @ root), full_matrices=False)
    expected = (u[:, :8] * s[:8]) @ vh[:8] @ np.linalg.inv(root) / rows
    plan = adapters.plan_factorization(model, LOW_RANK | {"whiten": "full"}, batches)
    (row,) = plan.report(batches).weights
    made = table_of(plan.apply())
    np.testing.assert_allclose(made, expected, atol=1e-3 * np.abs(expected).max())
    assert row.dense_parameters == 50 * 24
    assert row.error is not None


def test_an_output_projection_of_its_own_stays(tmp_path):
    model = tiny("llama", tie_word_embeddings=False)
    adapters.factorize(model, LOW_RANK | {"whiten": "full"}, [batch_for("llama")])
    assert list(factorized_modules(model)) == ["model.embed_tokens"]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))
    assert type(adapters.densify(loaded).lm_head) is torch.nn.Linear
    assert not loaded.config.tie_word_embeddings


REFUSALS = {
    "layers": (LOW_RANK | {"layers": [0]}, ["'layers'"]),
    "scalars": (LOW_RANK | {"scalars": True}, ["'scalars'"]),
    "a search": (LOW_RANK | {"format": "searched", "rank": None, "budget": 0.5, "whiten": "full"}, ["'format'"]),
    "a calibrated train": (LOW_RANK | {"format": "tensor_train", "whiten": "full"}, ["'format'", "low_rank"]),
    "no calibration": (LOW_RANK | {"whiten": "full"}, ["'whiten'", "calibration"]),
    "a pattern of others": (
        LOW_RANK | {"rank_pattern": {"lm_head": 4}},
        ["'rank_pattern'", "'lm_head'", "embed_tokens"],
    ),
    "a shape of others": (
        {"target_modules": "embedding", "first_shape": {"lm_head": [10, 6]}},
        ["'first_shape'", "'lm_head'", "embed_tokens"],
    ),
    "a shape that does not divide": (
        {"target_modules": "embedding", "first_shape": [7, 6]},
        ["'first_shape'", "(50, 24)"],
    ),
}


@pytest.mark.parametrize(("config", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused(config, said, snapshot):
    model = tiny("llama", tie_word_embeddings=True)
    before = snapshot(model)
    with pytest.raises(adapters.ConfigurationError) as error:
        adapters.factorize(model, config)
    for part in said:
        assert part in str(error.value)
    assert snapshot(model) == before


def test_models_without_a_plain_embedding_are_refused():
    for model in (torch.nn.Linear(3, 3), adapters.factorize(tiny("gpt2"), LOW_RANK)):
        with pytest.raises(adapters.ConfigurationError, match="'target_modules'"):
            adapters.factorize(model, LOW_RANK)
    with pytest.raises(adapters.ConfigurationError, match="'target_modules'"):
        adapters.factorize(tiny("gpt2"), [LOW_RANK, LOW_RANK])
