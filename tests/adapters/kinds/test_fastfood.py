"""Fastfood against dense matrices that scipy and numpy make, its lengths, and that equal seeds give equal maps."""

import copy
import pickle

import numpy as np
import pytest
import scipy.linalg
import torch

from adapters.kinds.fastfood import Fastfood, walsh_hadamard

SIZES = [(1, 1), (7, 1), (1, 9), (64, 64), (100, 33), (40, 5), (5, 100), (1000, 130)]


def dense(fastfood):
    """P (size, dim) in float64, from the diagonals and the permutation, by the formula."""
    signs, numbers, order, _ = (tensor.numpy() for tensor in fastfood._factors(torch.device("cpu")))
    length = signs.shape[1]
    H = scipy.linalg.hadamard(length).astype(float)
    rows = []
    for B, G, pi in zip(signs, numbers.astype(float), order.reshape(-1, length) % length, strict=True):
        scale = 1 / (np.sqrt((G**2).sum()) * np.sqrt(fastfood.size))
        rows.append(scale * H @ np.diag(G) @ np.eye(length)[pi] @ H @ np.diag(B.astype(float)))
    return torch.from_numpy(np.concatenate(rows)[: fastfood.size, : fastfood.dim])


@pytest.mark.parametrize("power", range(13))
def test_the_transform_is_the_product_with_sylvester_s_matrix(power):
    H = torch.from_numpy(scipy.linalg.hadamard(2**power)).double()
    x = torch.randn(2, 3, 2**power, dtype=torch.float64)
    torch.testing.assert_close(walsh_hadamard(x), x @ H.T, rtol=1e-12, atol=1e-11)
    strided = torch.randn(2**power, 3, dtype=torch.float64).T
    torch.testing.assert_close(walsh_hadamard(strided), strided @ H.T, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("length", [1, 2, 64, 128])
def test_the_transform_has_exact_gradients_and_is_its_own_inverse_times_its_size(length):
    x = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(walsh_hadamard, x)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), length * x)


@pytest.mark.parametrize(("size", "dim"), SIZES)
def test_it_is_the_dense_product(size, dim):
    fastfood = Fastfood(size, dim, seed=3)
    x = torch.randn(dim, dtype=torch.float64)
    P = dense(fastfood)
    assert P.shape == (size, dim)
    assert fastfood(x).shape == (size,)
    torch.testing.assert_close(fastfood(x), P @ x, rtol=1e-6, atol=1e-7)  # s is kept in float32
    assert fastfood(x.float()).dtype == fastfood(x.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(fastfood(x.float()).double(), P @ x, rtol=1e-4, atol=1e-5)


def test_its_gradient_is_the_transposed_product():
    fastfood = Fastfood(100, 33, seed=3)
    x = torch.randn(33, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fastfood, x)
    weight = torch.randn(100, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(fastfood(x) @ weight, x)
    torch.testing.assert_close(gradient, dense(fastfood).T @ weight, rtol=1e-6, atol=1e-7)


def test_every_row_has_the_same_length_and_rows_of_a_block_are_orthogonal_on_average():
    size, length = 1024, 256
    P = torch.stack([dense(Fastfood(size, length, seed)) for seed in range(20)])
    torch.testing.assert_close(
        P.norm(dim=2), torch.full((20, size), (length / size) ** 0.5).double(), rtol=1e-6, atol=0
    )
    blocks = P.reshape(20 * size // length, length, length)
    products = blocks @ blocks.mT * (size / length)
    assert abs(float((products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))).mean())) < 1e-3


@pytest.mark.parametrize(("size", "dim"), [(300, 5), (64, 64), (1000, 130)])
def test_lengths_are_kept_on_average(size, dim):
    x = torch.randn(dim, dtype=torch.float64)
    ratios = torch.stack([Fastfood(size, dim, seed)(x).square().sum() / x.square().sum() for seed in range(400)])
    assert abs(float(ratios.mean()) - 1) < 4 * float(ratios.std()) / 400**0.5


def test_a_seed_gives_the_same_numbers_on_every_machine():
    drawn = Fastfood(6, 3, seed=7)(torch.tensor([1.0, -2.0, 0.5]))
    expected = [1.864482, 0.296432, 0.709229, 1.325615, -1.442139, 1.380006]
    torch.testing.assert_close(drawn, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_nothing_around_it_changes_what_is_drawn_and_it_changes_nothing():
    x = torch.randn(33)
    expected = Fastfood(100, 33, seed=3)(x)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with torch.device("meta"):
        surrounded = Fastfood(100, 33, seed=3)
        assert torch.equal(surrounded(x), expected)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Fastfood(100, 33, seed=3)(x), expected)
    assert not torch.allclose(Fastfood(100, 33, seed=4)(x), expected)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda fastfood: pickle.loads(pickle.dumps(fastfood))])
def test_copies_draw_the_same_again_and_carry_nothing(clone):
    fastfood = Fastfood(1000, 33, seed=3)
    x = torch.randn(33)
    expected = fastfood(x)
    other = clone(fastfood)
    assert len(pickle.dumps(fastfood)) < 1000
    assert other._drawn is None
    assert torch.equal(other(x), expected)
    assert other._drawn is not fastfood._drawn


@pytest.mark.parametrize(("size", "dim", "rows"), [(1000, 130, 1024), (589_824, 19_808, 589_824), (7, 1, 7)])
def test_it_keeps_nine_bytes_for_each_row_and_one_scale_for_each_block(size, dim, rows):
    fastfood = Fastfood(size, dim, seed=0)
    kept = sum(tensor.nbytes for tensor in fastfood._factors(torch.device("cpu")))
    assert kept == 9 * rows + 4 * fastfood.blocks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_the_same_map():
    fastfood = Fastfood(1000, 130, seed=3)
    x = torch.randn(130)
    torch.testing.assert_close(fastfood(x.cuda()).cpu(), fastfood(x), rtol=1e-5, atol=1e-6)


def test_it_compiles():
    fastfood = Fastfood(100, 33, seed=3)
    x = torch.randn(33)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: fastfood(x).square().sum(), backend="aot_eager")
    torch.testing.assert_close(compiled(x), fastfood(x).square().sum())
