"""Fastfood against dense matrices from scipy and numpy, the norms of its rows and outputs, and its seeds."""

import copy
import pickle

import numpy as np
import pytest
import scipy.linalg
import torch

from adapters.kinds.fastfood import Fastfood, walsh_hadamard

SIZES = [(1, 1), (7, 1), (1, 9), (64, 64), (100, 33), (5, 100), (1000, 130)]


def dense(fastfood):
    """P (size, dim) in float64, by the formula, from the diagonals and the permutation."""
    signs, normal, order, _ = (tensor.numpy() for tensor in fastfood._factors(torch.device("cpu")))
    length = signs.shape[1]
    H = scipy.linalg.hadamard(length).astype(float)
    rows = []
    for B, G, pi in zip(signs, normal.astype(float), order.reshape(-1, length) % length, strict=True):
        scale = 1 / (np.sqrt((G**2).sum()) * np.sqrt(fastfood.size))
        rows.append(scale * H @ np.diag(G) @ np.eye(length)[pi] @ H @ np.diag(B.astype(float)))
    return torch.from_numpy(np.concatenate(rows)[: fastfood.size, : fastfood.dim])


@pytest.mark.parametrize("power", [0, 1, 4, 5, 6, 11])  # factors 1, 2, 16, 32, (32, 2), (32, 32, 2)
def test_the_transform_is_the_product_with_sylvester_s_matrix(power):
    H = torch.from_numpy(scipy.linalg.hadamard(2**power)).double()
    x = torch.randn(2, 3, 2**power, dtype=torch.float64)
    torch.testing.assert_close(walsh_hadamard(x), x @ H.T, rtol=1e-12, atol=1e-11)
    strided = torch.randn(2**power, 3, dtype=torch.float64).T
    torch.testing.assert_close(walsh_hadamard(strided), strided @ H.T, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("length", [1, 2, 64])
def test_the_transform_has_exact_gradients_and_is_its_own_inverse_times_its_size(length):
    x = torch.randn(3, length, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(walsh_hadamard, x)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), length * x)


@pytest.mark.parametrize(("size", "dim"), SIZES)
def test_fastfood_equals_the_dense_product(size, dim):
    fastfood = Fastfood(size, dim, seed=3)
    x = torch.randn(dim, dtype=torch.float64)
    P = dense(fastfood)
    assert P.shape == (size, dim)
    assert fastfood(x).shape == (size,)
    torch.testing.assert_close(fastfood(x), P @ x, rtol=1e-6, atol=1e-7)  # s is kept in float32
    assert fastfood(x.float()).dtype == fastfood(x.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(fastfood(x.float()).double(), P @ x, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_the_transposed_product():
    fastfood = Fastfood(100, 33, seed=3)
    x = torch.randn(33, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fastfood, x)
    weight = torch.randn(100, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(fastfood(x) @ weight, x)
    torch.testing.assert_close(gradient, dense(fastfood).T @ weight, rtol=1e-6, atol=1e-7)


def test_rows_have_equal_norms_and_are_orthogonal_on_average_within_a_block():
    size, length, maps = 512, 128, 20
    P = torch.stack([dense(Fastfood(size, length, seed)) for seed in range(maps)])
    norms = torch.full((maps, size), (length / size) ** 0.5).double()
    torch.testing.assert_close(P.norm(dim=2), norms, rtol=1e-6, atol=0)
    blocks = P.reshape(-1, length, length)
    products = blocks @ blocks.mT * (size / length)
    assert abs(float((products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))).mean())) < 1e-3


@pytest.mark.parametrize(("size", "dim"), [(300, 5), (64, 64)])
def test_norms_are_preserved_on_average(size, dim):
    x = torch.randn(dim, dtype=torch.float64)
    ratios = torch.stack([Fastfood(size, dim, seed)(x).square().sum() / x.square().sum() for seed in range(200)])
    assert abs(float(ratios.mean()) - 1) < 4 * float(ratios.std()) / 200**0.5


def test_a_seed_gives_the_same_map_on_every_machine():
    drawn = Fastfood(6, 3, seed=7)(torch.tensor([1.0, -2.0, 0.5]))
    expected = [1.864482, 0.296432, 0.709229, 1.325615, -1.442139, 1.380006]
    torch.testing.assert_close(drawn, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_drawing_is_independent_of_the_context_and_of_torch_s_random_state():
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
def test_copies_hold_no_tensors_and_redraw_the_same_map(clone):
    fastfood = Fastfood(1000, 33, seed=3)
    x = torch.randn(33)
    expected = fastfood(x)
    other = clone(fastfood)
    assert len(pickle.dumps(fastfood)) < 1000
    assert other._drawn is None
    assert torch.equal(other(x), expected)
    assert other._drawn is not fastfood._drawn


@pytest.mark.parametrize(("size", "dim", "rows"), [(1000, 130, 1024), (7, 1, 7)])
def test_memory_is_nine_bytes_per_row_and_one_scale_per_block(size, dim, rows):
    fastfood = Fastfood(size, dim, seed=0)
    kept = sum(tensor.nbytes for tensor in fastfood._factors(torch.device("cpu")))
    assert kept == 9 * rows + 4 * fastfood.blocks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_map_is_the_same_on_a_gpu():
    fastfood = Fastfood(1000, 130, seed=3)
    x = torch.randn(130)
    torch.testing.assert_close(fastfood(x.cuda()).cpu(), fastfood(x), rtol=1e-5, atol=1e-6)


def test_fastfood_compiles():
    fastfood = Fastfood(100, 33, seed=3)
    x = torch.randn(33)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: fastfood(x).square().sum(), backend="eager")
    torch.testing.assert_close(compiled(x), fastfood(x).square().sum())
