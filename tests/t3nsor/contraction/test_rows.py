"""Rows of a network looked up by index, against those of the dense matrix."""

import math

import pytest
import torch

import t3nsor as t3
from t3nsor.contraction import gather_rows
from t3nsor.contraction.chains import Sizes, dense
from t3nsor.contraction.rows import table_bond


@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (0,), (2, 0)])
def test_rows_match_the_dense_matrix(shape, raw_shape, format, random_network, dense_of):
    network = random_network(raw_shape, 2, format)
    indices = torch.randint(0, math.prod(raw_shape[0]), shape)
    torch.testing.assert_close(
        gather_rows(network.cores, indices), dense_of(network.cores)[indices], rtol=1e-12, atol=1e-12
    )


def test_all_rows_in_order(raw_shape, format, random_network, dense_of):
    network = random_network(raw_shape, 2, format)
    indices = torch.arange(network.shape[0])
    torch.testing.assert_close(gather_rows(network.cores, indices), dense_of(network.cores), rtol=1e-12, atol=1e-12)


def test_gradients_match_dense_indexing(raw_shape, format, random_network, dense_step):
    """A row is a unit vector times the transposed matrix; gradients of repeated indices add up."""
    network = random_network(raw_shape, 2, format)
    rows, columns = network.shape
    indices = torch.randint(0, rows, (9,))
    g = torch.randn(9, columns, dtype=torch.float64)
    cores = [core.requires_grad_() for core in network.cores]
    found = torch.autograd.grad(gather_rows(cores, indices), cores, g)
    one_hot = torch.nn.functional.one_hot(indices, rows).double()
    truth = dense_step(network.T, one_hot, g)[2:]
    torch.testing.assert_close([t.transpose(1, 2) for t in found], truth, rtol=1e-11, atol=1e-11)


def test_gradcheck(format, random_network):
    cores = [core.requires_grad_() for core in random_network(((2, 3), (2, 2)), 2, format).cores]
    indices = torch.tensor([[0, 5], [5, 2]])
    assert torch.autograd.gradcheck(lambda *cores: gather_rows(cores, indices), tuple(cores))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_int32_and_int64_indices_are_supported(dtype, random_network, dense_of):
    network = random_network()
    rows = gather_rows(network.cores, torch.tensor([23, 0], dtype=dtype))
    torch.testing.assert_close(rows, dense_of(network.cores)[[23, 0]], rtol=1e-12, atol=1e-12)


def test_autocast_does_not_lower_it(random_network):
    cores = [core.requires_grad_() for core in random_network(dtype=torch.float32).cores]
    indices = torch.arange(24)
    with torch.autocast("cpu", torch.bfloat16):
        inside = gather_rows(cores, indices)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, gather_rows(cores, indices))
    inside.sum().backward()
    assert {core.grad.dtype for core in cores} == {torch.float32}


def test_the_bond_minimises_the_entries_written():
    sizes = Sizes((10, 10, 10), (4, 4, 4), (1, 8, 2, 1))
    assert table_bond(Sizes((5,), (4,), (1, 1)), 7) is None
    for count in (1, 100, 10**6):
        written = []
        for bond in (1, 2):
            M1, N1, M2, N2, R = sizes.split(bond)
            written.append(R * (M1 * N1 + M2 * N2 + count * (N1 + N2)))
        assert table_bond(sizes, count) == 1 + written.index(min(written))


def test_a_large_table_is_never_built():
    network = t3.random_matrix(((100, 100, 100, 100), (8, 8, 8, 8)), 4)
    ends = [core[:, -1:] for core in network.cores]
    torch.testing.assert_close(gather_rows(network.cores, torch.tensor([10**8 - 1])), dense(ends))
