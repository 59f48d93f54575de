"""The canonical polyadic format against its sum over rank-one terms, written out by numpy in float64."""

import numpy as np
import pytest
import torch

import t3nsor as t3

SHAPES = [((6,), (4,)), ((2, 3), (4, 5)), ((2, 3, 4), (3, 1, 2)), ((2, 1, 3, 2), (1, 4, 1, 3))]


def layer_of(raw_shape, rank=3, **options):
    rows, columns = (int(np.prod(side)) for side in raw_shape)
    options = {"bias": False, "format": "cp", "dtype": torch.float64, **options}
    return t3.TTLinear(columns, rows, raw_shape=raw_shape, tt_rank=rank, **options)


def dense(layer):
    """sum_a of the outer products of F_k[:, :, a]."""
    factors = [factor.detach().numpy() for factor in layer.cores]
    d, total = len(factors), 0
    for a in range(factors[0].shape[2]):
        term = np.ones(())
        for factor in factors:
            term = np.multiply.outer(term, factor[:, :, a])  # (m_1, n_1, ..., m_k, n_k)
        total = total + term
    order = [*range(0, 2 * d, 2), *range(1, 2 * d, 2)]
    return torch.from_numpy(total.transpose(order).reshape(layer.out_features, layer.in_features))


@pytest.mark.parametrize("raw_shape", SHAPES, ids=str)
@pytest.mark.parametrize("rank", [1, 4])
def test_the_matrix_is_the_sum_of_its_terms(raw_shape, rank):
    layer = layer_of(raw_shape, rank)
    torch.testing.assert_close(layer.full(), dense(layer), rtol=1e-12, atol=1e-12)
    x = torch.randn(2, 5, layer.in_features, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ dense(layer).T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("raw_shape", SHAPES[1:], ids=str)
def test_it_has_r_parameters_for_each_pair_of_factors(raw_shape):
    layer = layer_of(raw_shape, rank=5)
    counted = sum(parameter.numel() for parameter in layer.parameters())
    assert counted == 5 * sum(m * n for m, n in zip(*raw_shape, strict=True))
    assert layer.ranks == (1, *(5 for _ in raw_shape[0][1:]), 1)


def test_gradients_reach_every_factor():
    layer = layer_of(SHAPES[2], rank=2)
    x = torch.randn(3, layer.in_features, dtype=torch.float64)

    def output(*factors):
        return torch.func.functional_call(layer, {f"cores.{k}": factor for k, factor in enumerate(factors)}, (x,))

    assert torch.autograd.gradcheck(output, [factor.detach().clone().requires_grad_() for factor in layer.cores])


@pytest.mark.parametrize("rank", [1, 8])
def test_the_initial_matrix_has_the_requested_variance(rank):
    raw_shape = ((6, 5), (7, 4))
    squares = [layer_of(raw_shape, rank, init=0.3).full().square().mean() for _ in range(200)]
    assert torch.stack(squares).mean().item() == pytest.approx(0.09, rel=0.12)


def test_a_sum_is_the_decomposition_of_both_ranks():
    one, other = layer_of(SHAPES[2], 2).network(), layer_of(SHAPES[2], 3).network()
    total = one + other
    assert total.ranks == (1, 5, 5, 1)
    torch.testing.assert_close(total.full(), one.full() + other.full(), rtol=1e-12, atol=1e-12)


def test_a_factor_can_be_shared():
    layer, other = layer_of(SHAPES[2], 2), layer_of(SHAPES[2], 2)
    owner = torch.nn.ParameterDict({"middle": torch.nn.Parameter(torch.randn(3, 1, 2, dtype=torch.float64))})
    for borrower in (layer, other):
        borrower.share(1, owner, "middle")
    assert layer.cores[1] is None
    (layer.full().sum() + other.full().sum()).backward()
    assert owner["middle"].grad.any()


@pytest.mark.parametrize("rank", [[2, 3], [2], [2, 2, 2]])
def test_different_ranks_raise(rank):
    with pytest.raises(ValueError, match=r"have one rank; got .* for 2 bonds: pass one int"):
        layer_of(SHAPES[2], rank)


def test_a_constant_init_raises():
    with pytest.raises(ValueError, match="format='cp': use a random init"):
        layer_of(SHAPES[2], init="ones")
