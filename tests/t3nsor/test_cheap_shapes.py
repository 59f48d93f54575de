"""cheapest_shape against an exhaustive search over all factors, and against the parameter counts of layers."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor as t3
from t3nsor.cheap_shapes import MATRIX_RANK, shape_costs
from t3nsor.shapes import train_ranks


def parameters(raw_shape, rank):
    """The parameter count of the cores."""
    ranks = train_ranks(raw_shape, rank)
    return sum(math.prod(size) for size in zip(ranks[:-1], *raw_shape, ranks[1:], strict=True))


def splits(n, d):
    """All ordered factorisations of n into d factors."""
    if d == 1:
        return [(n,)]
    return [(k, *rest) for k in range(1, n + 1) if n % k == 0 for rest in splits(n // k, d - 1)]


def cost(raw_shape, rank):
    """Multiply-adds per token and direction at the best bond."""
    rows, columns = raw_shape
    M, N, ranks = math.prod(rows), math.prod(columns), train_ranks(raw_shape, rank)
    return min(
        ranks[bond] * math.prod(rows[bond:]) * (N + math.prod(columns[:bond]) * M) for bond in range(1, len(rows))
    )


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("sizes", [(12, 8), (8, 12), (16, 6), (9, 9)])
@pytest.mark.parametrize("spare", [0, 10, 100])
def test_no_shape_within_the_budget_is_cheaper(sizes, rank, d, spare):
    N, M = sizes
    everything = list(itertools.product(splits(M, d), splits(N, d)))
    budget = parameters((t3.factorize(M, d), t3.factorize(N, d)), rank) + spare
    found = t3.cheapest_shape(N, M, d, rank, max_parameters=budget, matrix_rank=1)
    assert parameters(found, rank) <= budget
    assert cost(found, rank) == min(cost(shape, rank) for shape in everything if parameters(shape, rank) <= budget)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("sizes", [(12, 8), (16, 6)])
def test_a_cost_budget_gives_few_parameters(sizes, rank):
    N, M = sizes
    limit = rank * (N + 3 * M)
    found = t3.cheapest_shape(N, M, 3, rank, max_cost=limit, matrix_rank=1)
    smallest = min(
        parameters(shape, rank) for shape in itertools.product(splits(M, 3), splits(N, 3)) if cost(shape, rank) <= limit
    )
    assert cost(found, rank) <= limit
    assert smallest <= parameters(found, rank) <= 1.05 * smallest


@settings(max_examples=60)
@given(sizes=st.tuples(st.integers(1, 96), st.integers(1, 96)), d=st.integers(1, 5), rank=st.integers(1, 9))
def test_every_layer_size_has_a_shape(sizes, d, rank):
    N, M = sizes
    rows, columns = t3.cheapest_shape(N, M, d, rank)
    assert (len(rows), math.prod(rows), math.prod(columns)) == (d, M, N)
    t3.TTLinear(N, M, d=d, tt_rank=rank, shape_mode="cheapest", device="meta")


@pytest.mark.parametrize(
    ("sizes", "rank", "shape", "count"),
    [
        ((768, 3072), 2, ((24, 128, 1), (8, 1, 96)), 1088),
        ((768, 3072), 8, ((96, 32, 1), (2, 1, 384)), 6656),
        ((3072, 768), 4, ((64, 12, 1), (2, 3, 512)), 3136),
    ],
)
def test_the_feed_forward_layers_of_t5_base(sizes, rank, shape, count):
    layer = t3.TTLinear(*sizes, bias=False, tt_rank=rank, shape_mode="cheapest", device="meta")
    ascending = t3.TTLinear(*sizes, bias=False, tt_rank=rank, device="meta")
    assert layer.raw_shape == shape
    assert layer.network().param_count == count <= ascending.network().param_count
    listed = [found for found in shape_costs(*sizes, 3, rank) if found.raw_shape == shape]
    assert {found.parameters for found in listed} == {count}
    assert min(found.matrix_rank for found in listed) >= MATRIX_RANK


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(48, 64), (64, 48), (30, 42), (7, 13)])
def test_the_matrix_reaches_its_matrix_rank(sizes, rank):
    layer = t3.TTLinear(*sizes, bias=False, tt_rank=rank, shape_mode="cheapest")
    bound = next(found.matrix_rank for found in shape_costs(*sizes, 3, rank) if found.raw_shape == layer.raw_shape)
    assert torch.linalg.matrix_rank(layer.full().double(), rtol=1e-6) == bound


def test_only_the_largest_of_a_list_of_ranks_counts():
    assert t3.cheapest_shape(48, 64, 3, [2, 4]) == t3.cheapest_shape(48, 64, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_parameters": 3}, ValueError, "max_parameters must be at least .* got 3"),
        ({"max_cost": 5}, ValueError, "max_cost must be at least .* got 5"),
        ({"max_cost": 500, "max_parameters": 500}, ValueError, "Only one of max_parameters and max_cost"),
        ({"d": 0}, ValueError, "d must be at least 1"),
        ({"matrix_rank": 0}, ValueError, "matrix_rank must be at least 1"),
        ({"rank": "four"}, TypeError, "The rank must be an integer"),
    ],
)
def test_invalid_arguments_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        t3.cheapest_shape(48, 64, **arguments)
