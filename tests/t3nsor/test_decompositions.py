import math

import numpy as np
import pytest
import tensorly
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import tensor_train

import t3nsor as t3

RAW_SHAPES = [
    ((5,), (4,)),
    ((2, 3), (4, 2)),
    ((2, 3, 4), (3, 2, 2)),
    ((2, 1, 3, 2), (1, 3, 2, 2)),
    ((2, 2, 2, 2, 2), (2, 1, 2, 1, 2)),
    ((2, 2, 2, 2, 2, 2), (2, 2, 1, 1, 2, 2)),
]


def random_dense(raw_shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn([math.prod(side) for side in raw_shape], generator=generator, dtype=torch.float64)


def unfolding(dense, raw_shape, k):
    """The unfolding (m_1 n_1 ... m_k n_k, rest) of a dense matrix by numpy."""
    d = len(raw_shape[0])
    tensor = dense.numpy().reshape(*raw_shape[0], *raw_shape[1])
    tensor = tensor.transpose([axis for i in range(d) for axis in (i, d + i)])
    rows = math.prod(m * n for m, n in zip(raw_shape[0][:k], raw_shape[1][:k], strict=True))
    return tensor.reshape(rows, -1)


@pytest.mark.parametrize("decompose", [t3.tt_svd, t3.tr_svd])
@pytest.mark.parametrize("raw_shape", RAW_SHAPES)
def test_exact_at_full_rank(raw_shape, decompose, dense_of):
    dense = random_dense(raw_shape)
    network = decompose(dense, raw_shape)
    assert network.raw_shape == raw_shape
    torch.testing.assert_close(dense_of(network.cores), dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decompose", [t3.tt_svd, t3.tr_svd])
@settings(max_examples=40)
@given(rel_tol=st.floats(0.0, 0.99), seed=st.integers(0, 10**6), raw_shape=st.sampled_from(RAW_SHAPES))
def test_the_error_stays_within_the_tolerance(decompose, rel_tol, seed, raw_shape):
    dense = random_dense(raw_shape, seed)
    error = (decompose(dense, raw_shape, rel_tol=rel_tol).full() - dense).norm()
    assert error <= (rel_tol + 1e-12) * dense.norm()


@pytest.mark.parametrize("max_rank", [1, 2, 4])
@pytest.mark.parametrize("raw_shape", RAW_SHAPES[1:])
def test_with_a_cap_the_error_is_within_oseledets_bound(raw_shape, max_rank):
    dense = random_dense(raw_shape)
    train = t3.tt_svd(dense, raw_shape, max_rank=max_rank)
    tails = []
    for k in range(1, len(raw_shape[0])):
        s = np.linalg.svd(unfolding(dense, raw_shape, k), compute_uv=False)
        tails.append((s[max_rank:] ** 2).sum())
    error = (train.full() - dense).norm().item()
    assert max(train.ranks) <= max_rank
    assert error <= math.sqrt(sum(tails)) + 1e-12
    assert error >= math.sqrt(max(tails)) - 1e-12  # no train of these ranks can be nearer


@pytest.mark.parametrize("max_rank", [1, 2, 3])
@pytest.mark.parametrize("raw_shape", RAW_SHAPES[1:4])
def test_tt_svd_matches_tensorly(raw_shape, max_rank):
    dense = random_dense(raw_shape)
    sizes = [m * n for m, n in zip(*raw_shape, strict=True)]
    expected = tensor_train(unfolding(dense, raw_shape, 1).reshape(sizes), rank=max_rank)
    ours = t3.tt_svd(dense, raw_shape, max_rank=max_rank)
    tensor = unfolding(ours.full(), raw_shape, 1).reshape(sizes)
    np.testing.assert_allclose(tensor, tensorly.tt_to_tensor(expected), rtol=1e-9, atol=1e-10)


def test_tt_svd_recovers_a_train_with_its_ranks():
    tt = t3.random_matrix(((3, 3, 3), (3, 3, 3)), [2, 4], dtype=torch.float64)
    found = t3.tt_svd(tt.full(), tt.raw_shape, rel_tol=1e-10)
    assert found.ranks == (1, 2, 4, 1)


@pytest.mark.parametrize(
    ("max_rank", "ranks"), [(None, (1, 9, 9, 1)), (4, (1, 4, 4, 1)), ([2, 5], (1, 2, 5, 1)), (100, (1, 9, 9, 1))]
)
def test_ranks_depend_on_shapes_only_unless_a_tolerance_is_given(max_rank, ranks):
    zeros = torch.zeros(27, 27, dtype=torch.float64)
    shape = ((3, 3, 3), (3, 3, 3))
    assert t3.tt_svd(zeros, shape, max_rank=max_rank).ranks == ranks
    assert t3.tt_svd(zeros, shape, max_rank=max_rank, rel_tol=0.0).ranks == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("max_rank", "most"), [(1, (1, 1, 1, 1)), (3, (3, 3, 3, 3)), ([2, 3, 4], (2, 3, 4, 2)), ([1, 9, 9], (1, 9, 9, 1))]
)
def test_a_ring_respects_max_rank(max_rank, most):
    dense = random_dense(((3, 3, 3), (3, 3, 3)))
    ranks = t3.tr_svd(dense, ((3, 3, 3), (3, 3, 3)), max_rank=max_rank).ranks
    assert all(rank <= cap for rank, cap in zip(ranks, most, strict=True))
    assert ranks[0] * ranks[1] == min(9, most[0] * most[1])


def test_a_vector_is_a_matrix_of_one_column():
    vector = random_dense(((24,), (1,)))[:, 0]
    train = t3.tt_svd(vector, ((2, 3, 4), (1, 1, 1)))
    torch.testing.assert_close(train.full()[:, 0], vector)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.01)])
def test_dtype_is_kept(dtype, tolerance):
    dense = random_dense(((2, 3), (3, 2))).to(dtype)
    for network in (t3.tt_svd(dense, ((2, 3), (3, 2))), t3.tr_svd(dense, ((2, 3), (3, 2)))):
        assert network.dtype == dtype
        torch.testing.assert_close(network.full().double(), dense.double(), rtol=tolerance, atol=tolerance)


def test_tiny_entries_are_not_treated_as_zero():
    tt = t3.random_matrix(((3, 3, 3), (3, 3, 3)), 3)
    dense = tt.full() * 1e-25
    assert t3.tt_svd(dense, tt.raw_shape, rel_tol=1e-3).ranks == (1, 3, 3, 1)


@pytest.mark.parametrize("r", [1, 2, 5])
def test_a_sum_of_kronecker_products_is_a_two_core_train(r):
    As = [random_dense(((2, 3), (2, 2)), seed) for seed in range(r)]
    Bs = [random_dense(((4,), (3,)), 100 + seed) for seed in range(r)]
    train = t3.from_kronecker(As, Bs)
    expected = sum(np.kron(A.numpy(), B.numpy()) for A, B in zip(As, Bs, strict=True))
    assert train.ranks == (1, r, 1)
    np.testing.assert_allclose(train.full().numpy(), expected, rtol=0, atol=1e-12)
    found_As, found_Bs = t3.to_kronecker(train)
    torch.testing.assert_close(found_As, torch.stack(As), rtol=0, atol=0)
    torch.testing.assert_close(found_Bs, torch.stack(Bs), rtol=0, atol=0)


def test_two_core_tt_svd_is_the_nearest_sum_of_kronecker_products():
    """Van Loan & Pitsianis 1993: the error is the norm of the discarded singular values of the rearranged matrix."""
    raw_shape = ((3, 4), (2, 5))
    dense = random_dense(raw_shape)
    blocks = dense.numpy().reshape(3, 4, 2, 5)
    rearranged = np.stack([blocks[i, :, j, :].ravel() for i in range(3) for j in range(2)])
    tail = np.sqrt((np.linalg.svd(rearranged, compute_uv=False)[2:] ** 2).sum())
    As, Bs = t3.to_kronecker(t3.tt_svd(dense, raw_shape, max_rank=2))
    approximation = sum(np.kron(A, B) for A, B in zip(As.numpy(), Bs.numpy(), strict=True))
    np.testing.assert_allclose(np.linalg.norm(dense.numpy() - approximation), tail, rtol=1e-10)


SHAPE = ((2, 3), (3, 2))
BAD_CALLS = [
    (lambda: t3.tt_svd([[1.0]], ((1,), (1,))), TypeError, "dense must be a floating-point tensor; got list"),
    (lambda: t3.tt_svd(torch.ones(6, 6, dtype=torch.int64), SHAPE), TypeError, "got torch.int64"),
    (lambda: t3.tt_svd(torch.ones(2, 3, 6), SHAPE), ValueError, "dense must be a non-empty matrix or vector"),
    (lambda: t3.tt_svd(torch.ones(0, 6), SHAPE), ValueError, r"got the shape \(0, 6\)"),
    (lambda: t3.tt_svd(torch.ones(5, 6), SHAPE), ValueError, "multiply to the number of rows = 5"),
    (lambda: t3.tt_svd(torch.ones(6, 7), SHAPE), ValueError, "multiply to the number of columns = 7"),
    (lambda: t3.tt_svd(torch.ones(6), SHAPE), ValueError, "multiply to the number of columns = 1"),
    (lambda: t3.tt_svd(torch.full((6, 6), math.inf), SHAPE), ValueError, "dense must be finite"),
    (lambda: t3.tt_svd(torch.ones(6, 6, device="meta"), SHAPE), ValueError, "meta device"),
    (lambda: t3.tt_svd(torch.ones(6, 6), SHAPE, max_rank=2.5), TypeError, "max_rank must be an integer"),
    (lambda: t3.tt_svd(torch.ones(6, 6), SHAPE, rel_tol="small"), ValueError, "rel_tol must lie in"),
    (lambda: t3.tr_svd(torch.ones(6, 6), SHAPE, max_rank=[2]), ValueError, "one entry per bond, 2 here"),
    (lambda: t3.from_kronecker([np.ones((2, 2))], [np.ones((2, 2))]), TypeError, "As must hold tensors; got nd"),
    (lambda: t3.from_kronecker([], []), ValueError, "got 0 and 0"),
    (lambda: t3.from_kronecker([torch.ones(2, 2)], []), ValueError, "got 1 and 0"),
    (lambda: t3.from_kronecker([torch.ones(2)], [torch.ones(2, 2)]), ValueError, "All of As must be matrices"),
    (lambda: t3.from_kronecker([torch.ones(2, 2)] * 2, [torch.ones(2, 2), torch.ones(3, 2)]), ValueError, "All of Bs"),
    (lambda: t3.to_kronecker(t3.random_matrix(((2, 2, 2), (2, 2, 2)), 2)), ValueError, "a train of 3 cores"),
    (lambda: t3.to_kronecker(torch.ones(2, 2)), ValueError, "got Tensor"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_invalid_input_raises(call, error, message):
    with pytest.raises(error, match=message):
        call()
