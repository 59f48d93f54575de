import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor as t3

RAW_SHAPES = [
    ((5,), (4,)),
    ((2, 3), (4, 2)),
    ((2, 3, 4), (3, 2, 2)),
    ((2, 1, 3, 2), (1, 3, 2, 2)),
    ((2, 2, 2, 2, 2), (2, 1, 2, 1, 2)),
    ((2, 2, 2, 2, 2, 2), (2, 2, 1, 1, 2, 2)),
]
RANKS = [1, 2, 3, 10**6]


def random_train(raw_shape, rank, dtype=torch.float64):
    return t3.random_matrix(raw_shape, rank, dtype=dtype)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("raw_shape", RAW_SHAPES)
def test_full_is_the_definition(raw_shape, rank, dense_of):
    tt = random_train(raw_shape, rank)
    torch.testing.assert_close(tt.full(), dense_of(tt.cores), rtol=1e-12, atol=1e-12)
    assert tt.raw_shape == raw_shape
    assert tt.shape == tuple(tt.full().shape)
    assert tt.ranks == (1, *(core.shape[3] for core in tt.cores))
    assert tt.param_count == sum(core.numel() for core in tt.cores)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("raw_shape", RAW_SHAPES)
def test_arithmetic_matches_the_dense_matrices(raw_shape, rank, dense_of):
    a, b = random_train(raw_shape, rank), random_train(raw_shape, 2)
    A, B = dense_of(a.cores), dense_of(b.cores)
    scalar = torch.tensor(0.5, dtype=torch.float64)
    results = {
        "a + b": (a + b, A + B),
        "a - b": (a - b, A - B),
        "-a": (-a, -A),
        "3 a": (3 * a, 3 * A),
        "a 2.5": (a * 2.5, 2.5 * A),
        "a tensor": (a * scalar, 0.5 * A),
        "tensor a": (scalar * a, 0.5 * A),
        "a.T": (a.T, A.T),
        "a b.T": (a @ b.T, A @ B.T),
    }
    for name, (train, dense) in results.items():
        assert isinstance(train, t3.TensorTrain), name
        torch.testing.assert_close(train.full(), dense, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(a.dot(b), (A * B).sum(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(a.norm(), A.norm(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(12,), (12, 5), (12, 1), (3, 12, 5), (2, 3, 12, 4), (12, 0)])
def test_product_with_a_dense_tensor(shape, dense_of):
    tt = random_train(((2, 3, 4), (3, 2, 2)), 3)
    dense = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(tt @ dense, dense_of(tt.cores) @ dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("center", range(-4, 4))
def test_orthogonalize_keeps_the_matrix_and_makes_the_unfoldings_orthonormal(center):
    tt = random_train(((2, 1, 3, 2), (1, 3, 2, 2)), 3)
    tt = tt + tt  # ranks beyond what the shape can use
    orthogonal = tt.orthogonalize(center)
    torch.testing.assert_close(orthogonal.full(), tt.full(), rtol=1e-12, atol=1e-12)
    center %= 4
    for k, core in enumerate(orthogonal.cores):
        r, s = core.shape[0], core.shape[3]
        if k < center:
            left = core.reshape(-1, s)
            torch.testing.assert_close(left.T @ left, torch.eye(s, dtype=torch.float64))
        elif k > center:
            right = core.reshape(r, -1)
            torch.testing.assert_close(right @ right.T, torch.eye(r, dtype=torch.float64))
    torch.testing.assert_close(orthogonal.cores[center].norm(), tt.full().norm())


@pytest.mark.parametrize("raw_shape", RAW_SHAPES)
def test_round_removes_redundant_ranks_without_loss(raw_shape):
    tt = random_train(raw_shape, 2)
    rounded = (tt + tt + tt).round(rel_tol=1e-12)
    assert rounded.ranks == tt.ranks
    torch.testing.assert_close(rounded.full(), 3 * tt.full(), rtol=1e-10, atol=1e-12)


@settings(max_examples=40)
@given(rel_tol=st.floats(0.0, 0.99), seed=st.integers(0, 2**31), shape=st.sampled_from(RAW_SHAPES))
def test_round_stays_within_its_tolerance(rel_tol, seed, shape):
    torch.manual_seed(seed)
    tt = random_train(shape, 4) + random_train(shape, 2) * 0.1
    rounded = tt.round(rel_tol=rel_tol)
    error = (rounded.full() - tt.full()).norm()
    assert error <= rel_tol * tt.full().norm() + 1e-12 * tt.full().norm()
    assert all(new <= old for new, old in zip(rounded.ranks, tt.ranks, strict=True))


def test_round_reduces_ranks_within_the_tolerance():
    noise = random_train(((3, 3, 3), (3, 3, 3)), 5)
    signal = random_train(((3, 3, 3), (3, 3, 3)), 1)
    tt = signal + noise * (1e-3 * signal.norm() / noise.norm())
    assert tt.round(rel_tol=1e-2).ranks == (1, 1, 1, 1)
    assert tt.round(rel_tol=1e-5).ranks == (1, 6, 6, 1)


@pytest.mark.parametrize(("max_rank", "ranks"), [(2, (1, 2, 2, 1)), ([1, 3], (1, 1, 3, 1)), (None, (1, 5, 5, 1))])
def test_round_respects_max_rank(max_rank, ranks):
    tt = random_train(((3, 3, 3), (3, 3, 3)), 5)
    assert tt.round(max_rank=max_rank).ranks == ranks


def test_rounding_to_a_rank_equals_tt_svd_of_the_dense_matrix():
    tt = random_train(((3, 2, 3), (2, 3, 3)), 6)
    direct = t3.tt_svd(tt.full(), tt.raw_shape, max_rank=3)
    torch.testing.assert_close(tt.round(max_rank=3).full(), direct.full(), rtol=1e-9, atol=1e-9)


def test_norm_of_a_difference_does_not_cancel():
    tt = random_train(((4, 4, 4), (4, 4, 4)), 3)
    nearly = tt * (1 + 1e-11)
    torch.testing.assert_close(
        (nearly - tt).norm() / tt.norm(), torch.tensor(1e-11, dtype=torch.float64), rtol=1e-3, atol=0
    )


def test_a_zero_matrix_rounds_to_rank_one():
    tt = random_train(((2, 3), (3, 2)), 3) * 0.0
    assert tt.round(rel_tol=0.1).ranks == (1, 1, 1)
    assert tt.norm() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_operation_keeps_the_dtype(dtype):
    tt = random_train(((2, 3), (3, 2)), 3, dtype)
    networks = [tt + tt, tt - tt, tt * 2, -tt, tt.T, tt @ tt.T, tt.round(max_rank=2), tt.orthogonalize()]
    assert {network.dtype for network in networks} == {dtype}
    assert {tt.full().dtype, tt.norm().dtype, tt.dot(tt).dtype} == {dtype}
    torch.testing.assert_close(tt.round().full().float(), tt.full().float(), rtol=0.05, atol=0.05)


def test_gradients_of_full_dot_and_norm():
    cores = [core.requires_grad_() for core in random_train(((2, 3), (3, 2)), 2).cores]
    other = random_train(((2, 3), (3, 2)), 2)
    assert torch.autograd.gradcheck(lambda *c: t3.TensorTrain(c).full(), cores)
    assert torch.autograd.gradcheck(lambda *c: t3.TensorTrain(c).dot(other), cores)
    assert torch.autograd.gradcheck(lambda *c: t3.TensorTrain(c).norm(), cores)


def test_to_moves_every_core_and_copies_are_equal():
    tt = random_train(((2, 3), (3, 2)), 2)
    assert tt.to(torch.float32).dtype == torch.float32
    assert tt.to("meta").device.type == "meta"
    for other in (pickle.loads(pickle.dumps(tt)), copy.deepcopy(tt)):
        torch.testing.assert_close(other.full(), tt.full(), rtol=0, atol=0)


def test_repr_names_shapes_and_ranks():
    assert repr(random_train(((2, 3), (3, 2)), 2)) == (
        "TensorTrain(shape=(6, 6), raw_shape=((2, 3), (3, 2)), ranks=(1, 2, 1), dtype=torch.float64)"
    )


def core(*shape, dtype=torch.float32, device="cpu"):
    return torch.ones(shape, dtype=dtype, device=device)


BAD_CALLS = [
    (lambda: t3.TensorTrain([]), ValueError, "needs at least one core"),
    (lambda: t3.TensorTrain([[1.0]]), TypeError, "got list as core 0"),
    (lambda: t3.TensorTrain([core(1, 2, 2, 1, dtype=torch.int64)]), TypeError, "got torch.int64 as core 0"),
    (lambda: t3.TensorTrain([core(1, 2, 1)]), ValueError, r"got \(1, 2, 1\) as core 0"),
    (lambda: t3.TensorTrain([core(1, 0, 2, 1)]), ValueError, "no zero in it"),
    (
        lambda: t3.TensorTrain([core(1, 2, 2, 3), core(2, 2, 2, 1)]),
        ValueError,
        "got 3 at the end of core 0 and 2 at the beginning of core 1",
    ),
    (lambda: t3.TensorTrain([core(2, 2, 2, 2)]), ValueError, "got r_0 = r_d = 2: use a TensorRing"),
    (lambda: t3.TensorTrain([core(1, 2, 2, 2)]), ValueError, "r_0 = 1 and r_d = 2"),
    (lambda: t3.TensorTrain([core(1, 2, 2, 2), core(2, 2, 2, 1).double()]), TypeError, "torch.float64 for core 1"),
    (lambda: t3.TensorTrain([core(1, 2, 2, 2), core(2, 2, 2, 1, device="meta")]), ValueError, "meta for core 1"),
    (lambda: small() + t3.random_matrix(((3, 2), (2, 3)), 2), ValueError, "only if their raw shapes are equal"),
    (lambda: small() @ t3.random_matrix(((2, 3), (2, 3)), 2), ValueError, "left columns must be factored"),
    (lambda: small() @ torch.ones(5), ValueError, r"with N = 6; got the shape \(5,\)"),
    (lambda: small() @ torch.ones(2, 5, 6), ValueError, r"got the shape \(2, 5, 6\)"),
    (lambda: small() @ torch.tensor(1.0), ValueError, r"got the shape \(\)"),
    (lambda: small() + 1, TypeError, "unsupported operand"),
    (lambda: small() * small(), TypeError, "unsupported operand"),
    (lambda: small().dot(torch.ones(6, 6)), TypeError, "dot needs another TensorTrain; got a Tensor"),
    (lambda: small().orthogonalize(2), ValueError, "center must index one of the 2 cores; got 2"),
    (lambda: small().round(max_rank=0), ValueError, "max_rank must be at least 1; got 0"),
    (lambda: small().round(max_rank=[1, 1]), ValueError, r"one entry per bond, 1 here; got \[1, 1\] with 2"),
    (lambda: small().round(rel_tol=1.0), ValueError, r"rel_tol must lie in \[0, 1\); got 1.0"),
    (lambda: small().round(rel_tol=-0.1), ValueError, "got -0.1"),
    (lambda: (small() * math.nan).round(2), ValueError, "must be finite; got a NaN"),
    (lambda: small().to("meta").round(2), ValueError, "meta device"),
    (lambda: small().to(torch.int64), TypeError, "got torch.int64 as core 0"),
]


def small():
    return t3.random_matrix(((2, 3), (3, 2)), 2)


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_invalid_input_raises(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("format", t3.FORMATS)
@pytest.mark.parametrize("raw_shape", RAW_SHAPES[:4], ids=str)
def test_every_format_converts_exactly_to_a_train(raw_shape, format, dense_of):
    network = t3.random_matrix(raw_shape, 2, format=format, dtype=torch.float64)
    train = network.to_train()
    assert type(train) is t3.TensorTrain
    torch.testing.assert_close(dense_of(train.cores), dense_of(network.cores), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((train - train.round(rel_tol=1e-12)).norm() / train.norm() + 1, train.norm() * 0 + 1)
