"""One tensor for several layers: a basis in common, and a small core for each."""

import itertools

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import adapters
from adapters.factorized.layers import factorized_modules
from adapters.factorized.shared_basis import improved_basis
from tests.adapters.models import logits, tiny

OUT, IN, LAYERS = 12, 8, 3
CONFIG = {"format": "shared_basis", "rank": [5, 7], "target_modules": ["in", "out"]}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative_error(weights, cores, moments):
    V, S, U = cores[0][0, 0], cores[1][:, :, 0], cores[2][:, :, 0, 0]
    lost = total = 0.0
    for layer, (W, C) in enumerate(zip(weights, moments, strict=True)):
        root = torch.linalg.cholesky(C)
        lost += ((W - U.T @ S[:, layer].T @ V.T) @ root).square().sum().item()
        total += (W @ root).square().sum().item()
    return lost / total


def test_the_parameters_are_a_basis_and_small_cores():
    model = adapters.factorize(tiny("llama"), CONFIG)
    for name, out_features, in_features in (("up_proj", 48, 24), ("down_proj", 24, 48)):
        found = [module for path, module in factorized_modules(model).items() if path.endswith(name)]
        parameters = {id(p): p.numel() for module in found for p in module.parameters()}
        assert sum(parameters.values()) == in_features * 5 + 2 * 5 * 7 + 7 * out_features
        assert found[0].live_cores()[0] is found[1].live_cores()[0]
        assert found[0].live_cores()[1] is not found[1].live_cores()[1]


def test_a_basis_of_full_rank_is_exact():
    model = tiny("llama")
    before = logits(model, "llama")
    adapters.factorize(model, CONFIG | {"rank": 1000})
    torch.testing.assert_close(logits(model, "llama"), before)


def test_weights_with_a_common_basis_are_found():
    model = tiny("llama")
    U, V = torch.randn(48, 7), torch.randn(5, 24)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight.copy_(0.1 * U @ torch.randn(7, 5) @ V)
    before = logits(model, "llama")
    adapters.factorize(model, CONFIG | {"target_modules": ["up_proj"]})
    torch.testing.assert_close(logits(model, "llama"), before)


def test_folders_with_shared_bases(tmp_path):
    model = adapters.factorize(tiny("llama", num_hidden_layers=4), CONFIG | {"layers_per_basis": 2})
    owners = {module.spec.owner for module in factorized_modules(model).values()}
    assert owners == {f"model.layers.{k}.mlp.{name}_proj" for k in (0, 2) for name in ("up", "down")}
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))
    adapters.densify(loaded)
    torch.testing.assert_close(logits(loaded, "llama"), logits(model, "llama"))


def test_the_error_never_grows_and_ends_at_the_reported_one():
    weights = [random(OUT, IN, seed=k) for k in range(LAYERS)]
    inputs = [random(40, IN, seed=10 + k) * torch.logspace(0, -k, IN, dtype=torch.float64) for k in range(LAYERS)]
    moments = [x.T @ x for x in inputs]
    start = [random(1, 1, IN, 4), random(4, LAYERS, 1, 5, seed=1), random(5, OUT, 1, 1, seed=2)]
    errors = []
    cores = improved_basis(weights, start, moments, errors)
    assert len(errors) > 2
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(errors))
    assert errors[-1] < relative_error(weights, start, moments)
    assert errors[-1] == pytest.approx(relative_error(weights, cores, moments), rel=1e-6)


def test_whitening_lowers_the_error_of_the_report():
    generator = torch.Generator().manual_seed(0)
    given = [torch.randint(3, 50, (4, 20), generator=generator) for _ in range(4)]
    errors = []
    for whiten in ("none", "kronecker", "full"):
        plan = adapters.plan_factorization(tiny("llama"), CONFIG | {"whiten": whiten}, given)
        rows = plan.report(given).weights
        errors.append(np.mean([row.error for row in rows]))
        assert rows[0].path == "model.layers.{0,1}.mlp.up_proj"
    assert errors[0] > errors[1] > errors[2]


REFUSALS = {
    "three ranks": ({"rank": [1, 2, 3]}, ["'rank'"]),
    "stacked": ({"stack": [["up_proj", "gate_proj"]]}, ["'stack'", "shared basis"]),
    "ranks of one layer": (
        {"rank_pattern": {r"layers\.1\.mlp\.up_proj": 3}},
        ["'rank_pattern'", "[5, 7] at", "layers.0", "3 at", "layers.1"],
    ),
    "no layers": ({"layers_per_basis": 0}, ["'layers_per_basis'"]),
    "of another format": (
        {"format": "low_rank", "rank": 3, "layers_per_basis": 2},
        ["'layers_per_basis'", "'low_rank'"],
    ),
}


@pytest.mark.parametrize(("fields", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused(fields, said):
    with pytest.raises(adapters.ConfigurationError) as error:
        adapters.factorize(tiny("llama"), CONFIG | fields)
    for part in said:
        assert part in str(error.value)
