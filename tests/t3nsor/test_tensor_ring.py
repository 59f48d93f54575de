import pytest
import torch

import t3nsor as t3

RAW_SHAPES = [((5,), (4,)), ((2, 3), (4, 2)), ((2, 3, 4), (3, 2, 2)), ((2, 1, 3, 2), (1, 3, 2, 2))]


def random_ring(raw_shape, rank):
    return t3.random_matrix(raw_shape, rank, format="tensor_ring", dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("raw_shape", RAW_SHAPES)
def test_arithmetic_matches_the_dense_matrices(raw_shape, rank, dense_of):
    a, b = random_ring(raw_shape, rank), random_ring(raw_shape, 2)
    A, B = dense_of(a.cores), dense_of(b.cores)
    for ring, dense in [
        (a, A),
        (a + b, A + B),
        (a - b, A - B),
        (-a * 2.5, -2.5 * A),
        (a.T, A.T),
        (a @ b.T, A @ B.T),
    ]:
        assert isinstance(ring, t3.TensorRing)
        torch.testing.assert_close(ring.full(), dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.dot(b), (A * B).sum(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(a.norm(), A.norm(), rtol=1e-11, atol=0)
    x = torch.randn(A.shape[1], 3, dtype=torch.float64)
    torch.testing.assert_close(a @ x, A @ x, rtol=1e-12, atol=1e-12)


def test_a_train_is_a_ring():
    tt = t3.random_matrix(((2, 3), (3, 2)), 3, dtype=torch.float64)
    torch.testing.assert_close(t3.TensorRing(tt.cores).full(), tt.full(), rtol=0, atol=0)


def test_ring_ranks_are_an_int_or_one_for_each_core():
    assert random_ring(((2, 3, 2), (2, 2, 2)), 3).ranks == (3, 3, 3, 3)
    assert random_ring(((2, 3, 2), (2, 2, 2)), [2, 3, 4]).ranks == (2, 3, 4, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: random_ring(((2, 3), (2, 2)), [2]), ValueError, "must name r_0 to r_1"),
        (lambda: random_ring(((2, 3), (2, 2)), 0), ValueError, "The rank must be at least 1"),
        (lambda: t3.TensorRing([torch.ones(2, 2, 2, 3)]), ValueError, "r_0 = 2 and r_d = 3"),
        (lambda: random_ring(((2,), (2,)), 2) + t3.random_matrix(((2,), (2,)), 1), TypeError, "unsupported operand"),
        (lambda: t3.random_matrix(((2,), (2,)), 1, format="star"), ValueError, "format must be one of tensor_train"),
    ],
)
def test_invalid_input_raises(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("raw_shape", "rank"), [(((6,), (4,)), 3), (((2, 3), (4, 5)), [2, 3]), (((2, 3, 2), (3, 1, 2)), [3, 2, 4])], ids=str
)
def test_converted_to_a_train_it_is_the_same_matrix(raw_shape, rank, dense_of):
    network = t3.random_matrix(raw_shape, rank, format="tensor_ring", dtype=torch.float64)
    train = network.to_train()
    assert type(train) is t3.TensorTrain
    assert train.ranks[1:-1] == tuple(network.ranks[0] * r for r in network.ranks[1:-1])
    torch.testing.assert_close(dense_of(train.cores), dense_of(network.cores), rtol=1e-12, atol=1e-12)
