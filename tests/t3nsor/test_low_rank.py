"""Low-rank products as trains and back, against numpy, without a dense matrix if possible."""

import math

import numpy as np
import pytest
import torch

import t3nsor as t3

ONE_SIDED = {
    "in, out": ((1, 12), (9, 1)),
    "out, in": ((12, 1), (1, 9)),
    "in, in, out, out": ((1, 1, 3, 4), (3, 5, 1, 1)),
    "out, site, site, in": ((6, 1, 1, 1), (1, 1, 1, 8)),
    "in, site, out, out": ((1, 1, 3, 4), (8, 1, 1, 1)),
    "a column": ((1, 2, 3), (1, 1, 1)),
}
KRONECKER = {
    "out x in, out, in": ((6, 4, 1), (2, 1, 7)),
    "in x out, out, in": ((2, 9, 1), (5, 1, 4)),
    "out, out x in, in": ((5, 4, 1), (1, 2, 6)),
    "in, out, in x out": ((1, 9, 3), (8, 1, 2)),
    "tall and wide": ((8, 2), (2, 9)),
}
"""Shapes whose least q at rank 1 and 2 is below min(out, in), though a core has factors of both."""
TWO_SIDED = {"one core": ((6,), (4,)), "interleaved": ((2, 3), (4, 2)), "in, out, in": ((1, 6, 1), (4, 1, 3))}


@pytest.fixture
def no_dense(monkeypatch):
    """Raise if a dense matrix is built."""

    def fail(self):
        raise AssertionError("the dense matrix was built")

    monkeypatch.setattr(t3.TensorTrain, "full", fail)


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_the_train_of_two_factors_shares_their_storage(rank):
    B, A = torch.randn(12, rank), torch.randn(rank, 9)
    train = t3.from_low_rank(B, A)
    assert (train.raw_shape, train.ranks) == (((1, 12), (9, 1)), (1, rank, 1))
    np.testing.assert_allclose(train.full().numpy(), B.numpy() @ A.numpy(), rtol=1e-5, atol=1e-5)
    assert train.cores[0].data_ptr() == A.data_ptr()
    assert train.cores[1].data_ptr() == B.data_ptr()


def test_the_train_is_differentiable_in_the_factors():
    B, A = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 2), (2, 3)))
    assert torch.autograd.gradcheck(lambda B, A: t3.from_low_rank(B, A).full(), (B, A))


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", ONE_SIDED)
def test_a_train_of_one_sided_cores_is_factored_without_the_dense_matrix(name, rank, dense_of, no_dense):
    train = t3.random_matrix(ONE_SIDED[name], rank, dtype=torch.float64)
    dense = dense_of(train.cores)
    B, A = t3.to_low_rank(train)
    q = np.linalg.matrix_rank(dense.numpy())
    assert (B.shape, A.shape) == ((dense.shape[0], q), (q, dense.shape[1]))
    torch.testing.assert_close(B @ A, dense, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("name", KRONECKER)
def test_a_train_of_low_matrix_rank_is_factored_without_the_dense_matrix(name, rank, dense_of, no_dense):
    train = t3.random_matrix(KRONECKER[name], rank, dtype=torch.float64)
    dense = dense_of(train.cores)
    B, A = t3.to_low_rank(train)
    assert B.shape[1] == A.shape[0] == np.linalg.matrix_rank(dense.numpy()) < min(dense.shape)
    torch.testing.assert_close(B @ A, dense, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("name", TWO_SIDED)
def test_any_other_network_is_factored_at_its_matrix_rank(name, rank, format, dense_of):
    network = t3.random_matrix(TWO_SIDED[name], rank, format=format, dtype=torch.float64)
    dense = dense_of(network.cores)
    B, A = t3.to_low_rank(network)
    assert B.shape[1] == A.shape[0] == np.linalg.matrix_rank(dense.numpy())
    torch.testing.assert_close(B @ A, dense, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("raw_shape", [ONE_SIDED["in, out"], ONE_SIDED["out, in"], TWO_SIDED["interleaved"]], ids=str)
def test_the_singular_values_are_split_evenly_between_the_factors(raw_shape, dense_of):
    train = t3.random_matrix(raw_shape, 3, dtype=torch.float64)
    B, A = t3.to_low_rank(train)
    values = np.linalg.svd(dense_of(train.cores).numpy(), compute_uv=False)[: len(A)]
    for gram in (B.T @ B, A @ A.T):
        np.testing.assert_allclose(gram.numpy(), np.diag(values), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ONE_SIDED)
def test_redundant_ranks_of_a_sum_are_dropped(name):
    train = t3.random_matrix(ONE_SIDED[name], 2, dtype=torch.float64)
    B, A = t3.to_low_rank(train + train + train)
    assert B.shape[1] == t3.to_low_rank(train)[0].shape[1]
    torch.testing.assert_close(B @ A, 3 * train.full(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("raw_shape", [ONE_SIDED["in, out"], TWO_SIDED["interleaved"]], ids=str)
def test_the_zero_matrix_has_rank_one_factors_with_a_gradient(raw_shape):
    B, A = t3.to_low_rank(t3.random_matrix(raw_shape, 2) * 0.0)
    assert B.shape[1] == A.shape[0] == 1
    assert not B.any()
    assert A.norm().item() == pytest.approx(1.0)  # else neither would ever have a gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_is_kept(dtype):
    train = t3.random_matrix(ONE_SIDED["in, out"], 3, dtype=dtype)
    B, A = t3.to_low_rank(train)
    assert {B.dtype, A.dtype} == {dtype}
    torch.testing.assert_close((B @ A).float(), train.full().float(), rtol=0.05, atol=0.1)


def test_the_conversion_round_trips():
    B, A = torch.randn(12, 3, dtype=torch.float64), torch.randn(3, 9, dtype=torch.float64)
    left, right = t3.to_low_rank(t3.from_low_rank(B, A))
    assert left.shape == (12, 3)
    torch.testing.assert_close(left @ right, B @ A, rtol=1e-12, atol=1e-12)


BAD_CALLS = [
    (lambda: t3.from_low_rank([[1.0]], torch.ones(1, 2)), TypeError, "B must be a tensor; got list"),
    (
        lambda: t3.from_low_rank(torch.ones(2, 1), torch.ones(2)),
        ValueError,
        r"A must be a matrix; got the shape \(2",
    ),
    (lambda: t3.from_low_rank(torch.ones(2, 3), torch.ones(2, 3)), ValueError, "transpose one, or swap them"),
    (lambda: t3.from_low_rank(torch.ones(2, 3), torch.ones(3, 2).double()), TypeError, "All cores must have one dtype"),
    (lambda: t3.from_low_rank(torch.ones(2, 0), torch.ones(0, 2)), ValueError, "no zero in it"),
    (lambda: t3.to_low_rank(t3.random_matrix(((2,), (2,)), 1) * math.nan), ValueError, "Each core must be finite"),
    (lambda: t3.to_low_rank(t3.random_matrix(((2,), (2,)), 1, device="meta")), ValueError, "meta device"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_invalid_input_raises(call, error, message):
    with pytest.raises(error, match=message):
        call()
