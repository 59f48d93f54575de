"""Decompositions weighed by the inputs, against dense algebra in float64, and the calibration that they need."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import adapters
from adapters.factorized import alternating
from adapters.factorized.alternating import best_core, least_squares
from adapters.factorized.moments import cholesky
from adapters.factorized.whitening import kronecker_factors, times_kronecker
from tests.adapters.models import batch_for, tiny

OUT, IN, TOKENS = 12, 24, 300
TWO_CORES = {"format": "tensor_train", "raw_shape": [[4, 3], [6, 4]], "rank": 3}
THREE_CORES = {"format": "tensor_train", "raw_shape": [[2, 3, 2], [2, 3, 4]], "rank": 3}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(IN, OUT, dtype=torch.float64)

    def forward(self, x):
        return self.linear(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def x():
    """Correlated inputs (tokens, in) of very different sizes."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(IN, IN, generator=generator, dtype=torch.float64)
    scales = torch.logspace(0, -2, IN, dtype=torch.float64)
    return torch.randn(TOKENS, IN, generator=generator, dtype=torch.float64) * scales @ mixing


def weight_after(model, x, **config):
    made = adapters.factorize(copy.deepcopy(model), {"target_modules": ["linear"], **config}, [x])
    return made.linear.weight.detach()


def error(model, x, weight):
    dense = model.linear.weight.detach()
    return (((dense - weight) @ x.T).norm() / (dense @ x.T).norm()).item()


@pytest.mark.parametrize("whiten", ["full", "kronecker"])
def test_low_rank_has_the_least_error_of_its_rank(model, x, whiten):
    """By Eckart and Young: the best rank-r approximation of W X, which is W V V^T-like, in numpy."""
    made = weight_after(model, x, format="low_rank", rank=4, whiten=whiten)
    outputs = model.linear.weight.detach() @ x.T
    s = np.linalg.svd(outputs.numpy(), compute_uv=False)
    assert error(model, x, made) == pytest.approx(np.sqrt((s[4:] ** 2).sum() / (s**2).sum()))
    assert np.linalg.matrix_rank(made.numpy()) == 4


@pytest.mark.parametrize("config", [TWO_CORES, THREE_CORES], ids=["two cores", "three cores"])
def test_each_step_of_whitening_has_a_smaller_error(model, x, config):
    scales = torch.logspace(0, -2, IN, dtype=torch.float64)
    x = torch.randn(TOKENS, IN, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * scales + 0.01 * x
    errors = [error(model, x, weight_after(model, x, whiten=w, **config)) for w in ("none", "kronecker", "full")]
    assert errors[0] > 1.1 * errors[1]
    assert errors[1] > 1.01 * errors[2]


def test_inputs_with_moments_that_are_a_kronecker_product_have_nothing_left_to_gain(model):
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(n, n, generator=generator, dtype=torch.float64) for n in (6, 4))
    x = torch.from_numpy(np.kron(a, b))  # rows whose second moments are (a^T a) x (b^T b)
    kronecker, full = (weight_after(model, x, whiten=w, **TWO_CORES) for w in ("kronecker", "full"))
    torch.testing.assert_close(kronecker, full, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("columns", [(6, 4), (2, 3, 4), (24, 1), (1, 24)])
def test_the_nearest_kronecker_product(x, columns):
    moments = x.T @ x
    factors = kronecker_factors(moments, columns)
    for factor in factors:
        assert torch.linalg.eigvalsh(factor).min() > -1e-9
    if len(columns) == 2:
        first, second = (factor.numpy() for factor in factors)
        n1, n2 = columns
        rearranged = moments.numpy().reshape(n1, n2, n1, n2).transpose(0, 2, 1, 3).reshape(n1 * n1, n2 * n2)
        u, s, vh = np.linalg.svd(rearranged)
        nearest = s[0] * np.kron(u[:, 0].reshape(n1, n1), vh[0].reshape(n2, n2))
        np.testing.assert_allclose(np.kron(first, second), nearest, rtol=1e-5, atol=1e-6 * np.abs(nearest).max())


def test_the_product_with_a_kronecker_product(x):
    roots = [torch.randn(n, n, dtype=torch.float64) for n in (2, 3, 4)]
    dense = np.kron(np.kron(roots[0], roots[1]), roots[2])
    np.testing.assert_allclose(times_kronecker(x, roots), x.numpy() @ dense)


def test_alternating_least_squares_never_grows(model, x):
    for ranks in ([3], [2, 3]):
        shape = ((4, 3), (6, 4)) if len(ranks) == 1 else ((2, 3, 2), (2, 3, 4))
        generator = torch.Generator().manual_seed(3)
        sizes = zip([1, *ranks], *shape, [*ranks, 1], strict=True)
        cores = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
        errors = []
        dense = least_squares(model.linear.weight.detach(), cores, x.T @ x, errors)
        assert len(errors) > 3
        assert all(after <= before for before, after in itertools.pairwise(errors))
        assert errors[-1] ** 0.5 == pytest.approx(error(model, x, dense))
        assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_best_core_has_no_gradient(model, x, k):
    generator = torch.Generator().manual_seed(3)
    sizes = [(1, 2, 2, 3), (3, 3, 3, 2), (2, 2, 4, 1)]
    cores = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    weight, moments = model.linear.weight.detach(), x.T @ x
    cores[k] = best_core(cores, k, weight @ moments, moments).requires_grad_()
    a, b, c = cores
    dense = torch.einsum("ajkr,rmns,spqb->jmpknq", a, b, c).reshape(OUT, IN)
    (((weight - dense) @ x.T).square().sum() / (weight @ x.T).square().sum()).backward()
    assert cores[k].grad.abs().max() < 1e-8


@given(sizes=st.tuples(*[st.integers(1, 5)] * 5))
def test_both_orders_of_the_normal_matrix_are_one_sum(sizes):
    x, P, y, b, Q = sizes  # two chains of b terms around a matrix of x by y blocks, P by P each
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(x, P, y, P, generator=generator, dtype=torch.float64)
    terms = torch.randn(b, Q, P, generator=generator, dtype=torch.float64)
    expected = np.einsum("xPyR,bQP,dQR->xybd", matrix, terms, terms)
    np.testing.assert_allclose(alternating._sandwiched(matrix, terms), expected, atol=1e-12)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that an operation returns."""

    numel = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        returned = function(*arguments, **(options or {}))
        tensors = [part for part in pytree.tree_leaves(returned) if torch.is_tensor(part)]
        self.numel = max([self.numel, *(tensor.numel() for tensor in tensors)])
        return returned


@pytest.mark.parametrize("sizes", [[(1, 16, 1, 16), (16, 3, 64, 1)], [(1, 3, 64, 16), (16, 16, 1, 1)]])
def test_alternating_least_squares_needs_no_more_memory_than_its_matrices(sizes, monkeypatch):
    """Products of all terms and inputs with each other would have (16 x 64)^2 entries."""
    monkeypatch.setattr(alternating, "DIRECT", 256)
    cores = [torch.randn(size, dtype=torch.float64) for size in sizes]
    weight, moments = torch.randn(48, 64, dtype=torch.float64), torch.eye(64, dtype=torch.float64)
    with Largest() as largest:
        least_squares(weight, cores, moments, sweeps=1)
    assert largest.numel <= max(alternating.DIRECT**2, 16 * weight.numel())


def test_large_cores_are_improved_by_conjugate_gradients(model, x, monkeypatch):
    weight, moments = model.linear.weight.detach(), x.T @ x
    sizes = [(1, 2, 2, 3), (3, 3, 3, 2), (2, 2, 4, 1)]
    cores = [torch.randn(size, dtype=torch.float64) for size in sizes]
    exact = best_core(cores, 1, weight @ moments, moments)
    monkeypatch.setattr(alternating, "DIRECT", 0)
    monkeypatch.setattr(alternating, "STEPS", 200)
    torch.testing.assert_close(best_core(cores, 1, weight @ moments, moments), exact, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(alternating, "STEPS", 5)
    errors = []
    least_squares(weight, cores, moments, errors)
    assert errors[-1] < 0.5 * errors[0]
    assert all(after <= before for before, after in itertools.pairwise(errors))


def test_an_exact_fit_ends_alternating_least_squares(model, x):
    """Rounding may let the squared error be less than zero."""
    generator = torch.Generator().manual_seed(3)
    weight, few = model.linear.weight.detach(), x[:2]
    cores = [torch.randn(size, generator=generator, dtype=torch.float64) for size in [(1, 4, 6, 12), (12, 3, 4, 1)]]
    for scale in range(1, 21):  # each rounds differently
        errors = []
        assert least_squares(weight, cores, scale * few.T @ few, errors).isfinite().all()
        assert min(errors) >= 0
    llama, ids = tiny("llama"), {"input_ids": torch.randint(50, (1, 8))}
    before = llama(**ids).logits
    adapters.factorize(llama, {"format": "tensor_train", "rank": 64, "whiten": "full"}, [ids])
    torch.testing.assert_close(llama(**ids).logits, before, rtol=1e-3, atol=1e-3)


def test_singular_moments_get_a_ridge(model):
    few = torch.randn(3, IN, dtype=torch.float64)
    root = cholesky(few.T @ few / 3)
    assert root.isfinite().all()
    assert (root @ root.T - few.T @ few / 3).abs().max() < 1e-5
    made = weight_after(model, few, format="low_rank", rank=3, whiten="full")
    assert error(model, few, made) < 1e-3
    assert made.isfinite().all()


def test_moments_are_those_of_all_tokens_but_padding():
    model = tiny("llama")
    batch = batch_for("llama")
    seen = []
    hook = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model(**batch)
    hook.remove()
    config = {"target_modules": ["down_proj"], "format": "low_rank", "rank": 2}
    twice = adapters.input_moments(model, config, [batch, batch["input_ids"]])
    kept = seen[0].flatten(0, 1).double()
    moments = twice["model.layers.1.mlp.down_proj"]
    assert (set(twice), moments.tokens) == ({f"model.layers.{k}.mlp.down_proj" for k in (0, 1)}, 28)
    torch.testing.assert_close(moments.mean, kept.T @ kept / 14)
    padded = {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}
    padded["attention_mask"][:, 5:] = 0
    masked = adapters.input_moments(model, config, [padded])["model.layers.1.mlp.down_proj"]
    kept = seen[0][:, :5].flatten(0, 1).double()
    assert masked.tokens == 10
    torch.testing.assert_close(masked.mean, kept.T @ kept / 10)


def test_padding_does_not_count_where_a_model_flattens_its_tokens():
    model, batch = tiny("opt"), batch_for("opt")
    batch["attention_mask"][0, 5:] = 0
    seen = []
    hook = model.model.decoder.layers[0].fc1.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model(**batch)
    hook.remove()
    kept = seen[0].reshape(2, 7, -1)[batch["attention_mask"].bool()].double()
    config = {"target_modules": ["fc1"], "format": "low_rank", "rank": 2}
    moments = adapters.input_moments(model, config, [batch])["model.decoder.layers.0.fc1"]
    assert moments.tokens == len(kept) == 12
    torch.testing.assert_close(moments.mean, kept.T @ kept / 12)


def test_a_calibration_leaves_the_model_as_it_was(snapshot):
    model = tiny("gpt2").train()
    model.transformer.h[0].eval()
    before, modes = snapshot(model), [module.training for module in model.modules()]
    adapters.input_moments(model, {"format": "low_rank", "rank": 2}, [batch_for("gpt2")])
    assert snapshot(model) == before
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_moments_serve_several_factorizations():
    model = tiny("gpt2")
    config = {"format": "low_rank", "rank": 4, "whiten": "full"}
    moments = adapters.input_moments(model, config, [batch_for("gpt2")])
    once = adapters.factorize(copy.deepcopy(model), config, moments)
    again = adapters.factorize(copy.deepcopy(model), config, [batch_for("gpt2")])
    for a, b in zip(once.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def without_inputs(model):
    model.transformer.h[1].mlp.forward = lambda x: x
    return model


def with_infinity(model):
    with torch.no_grad():
        model.transformer.h[1].ln_2.bias[0] = torch.inf
    return model


REFUSALS = {
    "no calibration": (lambda m: m, None, ["'whiten'", "'full'", "batches"]),
    "no batch": (lambda m: m, [], ["h.0.mlp.c_fc", "batches"]),
    "no ids": (lambda m: m, ["text"], ["str", "tensors of ids"]),
    "one tensor": (lambda m: m, torch.zeros(4, 7, dtype=torch.long), ["batches", "(4, 7)", "list"]),
    "one mapping": (lambda m: m, batch_for("gpt2"), ["batches", "one dict", "list"]),
    "one row of ids": (lambda m: m, [torch.zeros(7, dtype=torch.long)], ["(batch, length)", "(7,)"]),
    "ids of others": (lambda m: m, [torch.full((1, 7), 50)], ["0 to 49", "50", "tokenizer"]),
    "ids of others by name": (lambda m: m, [{"input_ids": torch.full((1, 7), -1)}], ["0 to 49", "-1", "tokenizer"]),
    "an infinity": (with_infinity, [batch_for("gpt2")], ["h.1.mlp.c_fc", "NaN or an infinity"]),
    "never called": (without_inputs, [batch_for("gpt2")], ["h.1.mlp.c_fc", "none that reaches"]),
    "moments of others": (lambda m: m, {"a": adapters.Moments(torch.eye(2), 1)}, ["h.0.mlp.c_fc", "none that reaches"]),
}


@pytest.mark.parametrize(("change", "calibration", "said"), REFUSALS.values(), ids=REFUSALS)
def test_a_calibration_that_does_not_fit_is_refused(change, calibration, said, snapshot):
    model = change(tiny("gpt2"))
    before = snapshot(model)
    with pytest.raises(adapters.ConfigurationError) as raised:
        adapters.factorize(model, {"format": "low_rank", "rank": 2, "whiten": "full"}, calibration)
    for part in said:
        assert part in str(raised.value)
    assert snapshot(model) == before
