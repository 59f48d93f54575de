"""Products of cores and their gradients, against the definition and torch's autograd."""

import pytest
import torch

from t3nsor.contraction import chains
from t3nsor.contraction.chains import Sizes


@pytest.fixture
def cores(raw_shape, format, random_network):
    """The cores of a random network for every format and raw shape, requiring gradients."""
    network = random_network(raw_shape, 3 if format == "tensor_train" else 2, format)
    return [core.requires_grad_() for core in network.cores]


def test_the_dense_matrix_is_the_definition(cores, dense_of):
    torch.testing.assert_close(chains.dense(cores).detach(), dense_of(cores), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_base_is_added_in_the_same_pass_and_not_modified(cores, transposed, dense_of):
    matrix = dense_of(cores)
    base = torch.randn(matrix.T.shape, dtype=torch.float64).T if transposed else torch.randn_like(matrix)
    before = base.clone()
    torch.testing.assert_close(chains.dense(cores, base).detach(), matrix + base, rtol=1e-12, atol=1e-12)
    assert torch.equal(base, before)


def test_the_transposed_cores_represent_the_transposed_matrix(cores, dense_of):
    transposed = chains.transpose(cores)
    torch.testing.assert_close(dense_of(transposed), dense_of(cores).T, rtol=1e-12, atol=1e-12)
    assert Sizes.of(transposed) == Sizes.of(cores).transposed


def test_the_halves_at_every_bond_multiply_to_the_matrix(cores, dense_of):
    expected = dense_of(cores)
    for bond in range(1, len(cores)):
        left, right = chains.halves(cores, bond)
        M1, N1, M2, N2, R = Sizes.of(cores).split(bond)
        assert (*left.shape, *right.shape) == (M1, N1, R, R, M2, N2)
        matrix = torch.einsum("mnr,rMN->mMnN", left, right).reshape(expected.shape)
        torch.testing.assert_close(matrix.detach(), expected, rtol=1e-12, atol=1e-12)


def test_gradients_through_the_matrix_match_autograd(cores):
    matrix = chains.dense(cores)
    g = torch.randn_like(matrix)
    found = chains.dense_gradients([core.detach() for core in cores], g)
    torch.testing.assert_close(found, list(torch.autograd.grad(matrix, cores, g)), rtol=1e-11, atol=1e-11)


def test_gradients_through_a_chain_match_autograd(cores):
    product = chains.chain(cores)
    g = torch.randn_like(product)
    found = chains.chain_gradients([core.detach() for core in cores], g)
    torch.testing.assert_close(found, list(torch.autograd.grad(product, cores, g)), rtol=1e-11, atol=1e-11)


def test_gradients_through_the_halves_match_autograd(cores):
    for bond in range(1, len(cores)):
        halves = chains.halves(cores, bond)
        g = [torch.randn_like(half) for half in halves]
        found = chains.halves_gradients([core.detach() for core in cores], bond, *g)
        torch.testing.assert_close(found, list(torch.autograd.grad(halves, cores, g)), rtol=1e-11, atol=1e-11)


def test_sizes_match_the_network(raw_shape, format, random_network):
    network = random_network(raw_shape, 2, format)
    sizes = Sizes.of(network.cores)
    assert (sizes.rows, sizes.columns) == network.raw_shape
    assert sizes.ranks == network.ranks
    assert sizes.shape == network.shape


def test_halves_of_a_ring_are_also_contracted_over_the_outer_rank():
    sizes = Sizes((2, 3, 5), (7, 1, 2), (4, 2, 3, 4))
    assert sizes.split(1) == (2, 7, 15, 2, 4 * 2)
    assert sizes.split(2) == (6, 7, 5, 2, 4 * 3)


@pytest.mark.parametrize(
    ("sizes", "bond"),
    [
        (Sizes((5,), (4,), (1, 1)), None),
        (Sizes((5, 1), (1, 4), (1, 2, 1)), 1),
        (Sizes((8, 8, 1), (8, 1, 8), (1, 16, 2, 1)), 2),
        (Sizes((8, 8, 1), (1, 8, 8), (1, 2, 16, 1)), 1),
    ],
    ids=str,
)
def test_the_matrix_is_built_at_its_cheapest_bond(sizes, bond):
    assert sizes.best_bond() == bond
