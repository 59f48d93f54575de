"""The initial networks, against numpy's Kronecker products and singular values in float64."""

import copy

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

import adapters

OUT, IN = 24, 12


class Model(torch.nn.Module):
    """One linear."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)


def one_linear(conv=False, dtype=torch.float64, size=(OUT, IN)):
    torch.manual_seed(0)
    model = Model(Conv1D(size[0], size[1]) if conv else torch.nn.Linear(size[1], size[0])).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    return model


def matrix_of(model):
    """W (out, in)."""
    weight = model.linear.weight.detach().double().numpy()
    kind = model.linear.spec.linear if hasattr(model.linear, "spec") else type(model.linear).__name__
    return weight.T if kind == "Conv1D" else weight


def factorized(model, **config):
    return adapters.factorize(copy.deepcopy(model), {"target_modules": ["linear"], **config})


def rearranged(matrix, first):
    """W as the matrix (m1 n1, m2 n2) of Van Loan and Pitsianis."""
    (M, N), (m, n) = matrix.shape, first
    return matrix.reshape(m, M // m, n, N // n).transpose(0, 2, 1, 3).reshape(m * n, -1)


def van_loan(matrix, first, factors):
    """The nearest sum of Kronecker products, as a matrix."""
    (M, N), (m, n) = matrix.shape, first
    u, s, vh = np.linalg.svd(rearranged(matrix, first), full_matrices=False)
    pairs = [s[k] * np.kron(u[:, k].reshape(m, n), vh[k].reshape(M // m, N // n)) for k in range(factors)]
    return sum(pairs)


@pytest.mark.parametrize("conv", [False, True], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize(("first", "factors"), [((4, 3), 1), ((12, 6), 3), ((24, 1), 5), ((1, 12), 7), ((2, 2), 4)])
def test_kronecker_products_are_those_of_van_loan(first, factors, conv):
    model = one_linear(conv)
    expected = van_loan(matrix_of(model), first, factors)
    made = factorized(model, first_shape=list(first), factors=factors)
    np.testing.assert_allclose(matrix_of(made), expected, atol=1e-12)
    x = torch.randn(5, IN, dtype=torch.float64)
    y = x @ torch.from_numpy(expected.copy()).T + model.linear.bias
    torch.testing.assert_close(made(x), y)
    assert made.linear.bias.data_ptr() != model.linear.bias.data_ptr()


def test_low_rank_is_the_truncated_svd():
    model = one_linear()
    u, s, vh = np.linalg.svd(matrix_of(model), full_matrices=False)
    made = factorized(model, format="low_rank", rank=5)
    np.testing.assert_allclose(matrix_of(made), (u[:, :5] * s[:5]) @ vh[:5], atol=1e-12)


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
def test_networks_of_full_rank_are_exact(format):
    model = one_linear()
    rank = 1000 if format == "tensor_train" else [2, 3, 100]
    made = factorized(model, format=format, raw_shape=[[2, 3, 4], [3, 2, 2]], rank=rank)
    np.testing.assert_allclose(matrix_of(made), matrix_of(model), atol=1e-12)


def test_one_rank_of_a_ring_has_no_more_parameters_than_the_weight():
    model, shape = one_linear(size=(48, 32)), [[3, 4, 4], [2, 4, 4]]
    spec = factorized(model, format="tensor_ring", raw_shape=shape, rank=6).linear.spec
    assert spec.ranks == (6, 6, 6, 6)
    assert spec.parameters == 36 * (6 + 16 + 16) < 48 * 32 < 49 * 38
    with pytest.raises(adapters.ConfigurationError, match=r"'rank' of .* at most 6 at linear, .* got 7: lower it"):
        factorized(model, format="tensor_ring", raw_shape=shape, rank=7)
    with pytest.raises(adapters.ConfigurationError, match="at most 6 at linear"):
        factorized(model, format="tensor_ring", raw_shape=shape, rank=2, rank_pattern={"linear": 1000})


def test_the_norm_is_corrected():
    model = one_linear()
    plain, corrected = (
        matrix_of(factorized(model, first_shape=[4, 3], factors=2, start=start))
        for start in ("decomposition", "norm_corrected")
    )
    norm = np.linalg.norm(matrix_of(model))
    assert np.linalg.norm(corrected) == pytest.approx(norm)
    np.testing.assert_allclose(corrected, plain * norm / np.linalg.norm(plain), atol=1e-12)


@pytest.mark.parametrize("start", ["norm_corrected", "random"])
def test_a_start_by_the_norm_of_a_weight_of_zeros_is_refused(start):
    model = one_linear()
    torch.nn.init.zeros_(model.linear.weight)
    with pytest.raises(adapters.ConfigurationError, match="got a weight of zeros at linear: leave it out"):
        factorized(model, first_shape=[4, 3], start=start)


@pytest.mark.parametrize(("first", "second"), [((24, 6), [[1, 0.1]]), ((12, 12), [[1], [0.1]])])
def test_pruning_keeps_every_second_row_or_column(first, second):
    model = one_linear()
    kept = matrix_of(model)[:: OUT // first[0], :: IN // first[1]]
    made = factorized(model, first_shape=list(first), start="pruned")
    np.testing.assert_allclose(matrix_of(made), np.kron(kept, second), atol=1e-12)


def test_a_random_start_has_the_mean_square_of_the_weight():
    model = one_linear(size=(400, 300))
    before = torch.get_rng_state()
    made = factorized(model, first_shape=[20, 15], factors=20, start="random")
    assert np.square(matrix_of(made)).mean() == pytest.approx(np.square(matrix_of(model)).mean(), rel=0.2)
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_decomposition_is_deterministic_and_leaves_the_random_state_alone():
    model = one_linear()
    before = torch.get_rng_state()
    once, again = (factorized(model, first_shape=[4, 3], factors=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))


def test_the_two_cores_of_a_bond_have_the_same_norm():
    made = factorized(one_linear(), first_shape=[4, 3], factors=3)
    first, second = made.linear.cores
    squares = first.detach().square().sum((0, 1, 2)), second.detach().square().sum((1, 2, 3))
    torch.testing.assert_close(*squares)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cores_have_the_dtype_of_the_weight(dtype):
    made = factorized(one_linear(dtype=dtype), first_shape=[4, 3])
    assert {parameter.dtype for parameter in made.parameters()} == {dtype}


def test_scalars_multiply_their_terms():
    model = one_linear()
    made = factorized(model, first_shape=[4, 3], factors=2, scalars=True)
    assert made.linear.scalars.tolist() == [1, 1]
    with torch.no_grad():
        made.linear.scalars.copy_(torch.tensor([0.0, 2.0]))
    expected = van_loan(matrix_of(model), (4, 3), 2) - van_loan(matrix_of(model), (4, 3), 1)
    np.testing.assert_allclose(matrix_of(made), 2 * expected, atol=1e-12)
    made(torch.ones(1, IN, dtype=torch.float64)).sum().backward()
    assert made.linear.scalars.grad.abs().min() > 0


def test_frozen_cores_have_no_gradient():
    made = factorized(one_linear(), first_shape=[4, 3], frozen_cores=[-1])
    assert [core.requires_grad for core in made.linear.cores] == [True, False]
    assert made.linear.bias.requires_grad
