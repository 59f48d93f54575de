"""The Tucker format against its definition, written out by numpy's einsum in float64."""

import numpy as np
import pytest
import torch

import t3nsor as t3
from t3nsor.tucker import pivot, train_ranks_of

SHAPES = [((6,), (4,)), ((2, 3), (4, 5)), ((2, 3, 4), (3, 1, 2)), ((2, 1, 3, 2), (1, 4, 1, 3))]


def layer_of(raw_shape, rank=3, **options):
    rows, columns = (int(np.prod(side)) for side in raw_shape)
    options = {"bias": False, "format": "tucker", "dtype": torch.float64, **options}
    return t3.TTLinear(columns, rows, raw_shape=raw_shape, tt_rank=rank, **options)


def dense(layer):
    """C x_1 U_1 ... x_d U_d."""
    d = len(layer.cores)
    operands = [layer.cores.core_tensor.detach().numpy(), list(range(d))]
    for k, factor in enumerate(layer.cores):
        operands += [factor.detach().numpy(), [d + k, 2 * d + k, k]]
    tensor = np.einsum(*operands, list(range(d, 3 * d)))  # (m_1, ..., m_d, n_1, ..., n_d)
    return torch.from_numpy(tensor.reshape(layer.out_features, layer.in_features))


@pytest.mark.parametrize("raw_shape", SHAPES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_matrix_is_the_core_tensor_times_the_factors(raw_shape, rank):
    layer = layer_of(raw_shape, rank)
    torch.testing.assert_close(layer.full(), dense(layer), rtol=1e-12, atol=1e-12)
    x = torch.randn(2, 5, layer.in_features, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ dense(layer).T, rtol=1e-11, atol=1e-11)


def test_ranks_of_the_factors_may_differ():
    layer = layer_of(SHAPES[2], [5, 2, 3])
    assert tuple(layer.cores.core_tensor.shape) == (5, 2, 3)
    torch.testing.assert_close(layer.full(), dense(layer), rtol=1e-12, atol=1e-12)
    counted = sum(parameter.numel() for parameter in layer.parameters())
    assert counted == 6 * 5 + 3 * 2 + 8 * 3 + 5 * 2 * 3


def test_an_int_rank_is_clipped_in_each_factor():
    assert tuple(layer_of(SHAPES[2], 100).cores.core_tensor.shape) == (6, 3, 8)


@pytest.mark.parametrize(
    ("ranks", "p", "bonds"),
    [((5,), 0, (1, 1)), ((2, 3), 1, (1, 2, 1)), ((4, 5, 2), 1, (1, 4, 2, 1)), ((2, 2, 9, 2), 2, (1, 2, 4, 2, 1))],
)
def test_the_core_tensor_is_absorbed_where_the_ranks_of_the_train_are_smallest(ranks, p, bonds):
    assert (pivot(ranks), train_ranks_of(ranks)) == (p, bonds)


def test_gradients_reach_the_core_tensor_and_every_factor():
    layer = layer_of(SHAPES[2], 2)
    names = [name for name, _ in layer.named_parameters()]
    x = torch.randn(3, layer.in_features, dtype=torch.float64)

    def output(*tensors):
        return torch.func.functional_call(layer, dict(zip(names, tensors, strict=True)), (x,))

    assert "cores.core_tensor" in names
    assert torch.autograd.gradcheck(output, [p.detach().clone().requires_grad_() for p in layer.parameters()])


@pytest.mark.parametrize("rank", [1, 3])
def test_the_initial_matrix_has_the_requested_variance(rank):
    raw_shape = ((6, 5), (7, 4))
    squares = [layer_of(raw_shape, rank, init=0.3).full().square().mean() for _ in range(400)]
    assert torch.stack(squares).mean().item() == pytest.approx(0.09, rel=0.15)


def test_two_factors_are_a_product_of_three_matrices():
    layer = layer_of(((1, 12), (9, 1)), [4, 3])
    right, left = (factor.detach() for factor in layer.cores)  # (1, 9, 4), (12, 1, 3)
    expected = left[:, 0] @ layer.cores.core_tensor.detach().T @ right[0].T
    torch.testing.assert_close(layer.full(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": [2, 2]}, "must name r_1 to r_3, one per factor; got"),
        ({"rank": [7, 1, 1]}, "got rank 7 for factor 0 with m_k n_k = 6: pass at most 6"),
        ({"disabled_cores": [1]}, "does not support disabled_cores; got"),
        ({"init": "ones"}, "format='tucker': use a random init"),
    ],
)
def test_unsupported_arguments_raise(fields, message):
    with pytest.raises(ValueError, match=message):
        layer_of(SHAPES[2], **fields)
