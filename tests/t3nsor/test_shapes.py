import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import t3nsor as t3
from t3nsor.shapes import check_raw_shape, train_ranks


@pytest.mark.parametrize(
    ("n", "d", "factors"),
    [
        (768, 3, (8, 8, 12)),
        (3072, 3, (12, 16, 16)),
        (1024, 3, (8, 8, 16)),
        (24, 3, (2, 3, 4)),
        (96, 3, (4, 4, 6)),
        (7, 3, (1, 1, 7)),
        (1, 2, (1, 1)),
        (30, 1, (30,)),
        (64, 6, (2, 2, 2, 2, 2, 2)),
    ],
)
def test_factorize_gives_the_known_factors(n, d, factors):
    assert t3.factorize(n, d) == factors
    assert t3.factorize(n, d, "descending") == factors[::-1]


@given(n=st.integers(1, 400), d=st.integers(1, 4))
def test_factorize_has_the_least_sum_of_all_factorisations(n, d):
    divisors = [k for k in range(1, n + 1) if n % k == 0]
    least = min(sum(c) for c in itertools.combinations_with_replacement(divisors, d) if math.prod(c) == n)
    factors = t3.factorize(n, d)
    assert math.prod(factors) == n
    assert len(factors) == d
    assert sum(factors) == least


@given(n=st.integers(1, 3000), d=st.integers(1, 6))
def test_mixed_order_alternates_the_smallest_and_the_largest(n, d):
    ascending = list(t3.factorize(n, d))
    mixed = []
    while ascending:
        mixed.append(ascending.pop(0 if len(mixed) % 2 == 0 else -1))
    assert list(t3.factorize(n, d, "mixed")) == mixed


@given(n=st.integers(1, 3000), d=st.integers(1, 4))
def test_suggest_shape_is_the_nearest_even_split_above(n, d):
    def even(size):
        factors = t3.factorize(size, d)
        return max(factors) <= 2 * min(factors)

    padded = math.prod(t3.suggest_shape(n, d))
    assert padded >= n
    assert even(padded)
    assert not any(even(size) for size in range(n, padded))


@pytest.mark.parametrize(
    ("mode", "rows", "columns"),
    [
        ("ascending", (2, 3, 4), (8, 8, 12)),
        ("descending", (4, 3, 2), (12, 8, 8)),
        ("mixed", (2, 4, 3), (8, 12, 8)),
        ("reversed_out", (4, 3, 2), (8, 8, 12)),
        ("in_only", (24, 1, 1), (8, 8, 12)),
        ("out_only", (4, 3, 2), (1, 1, 768)),
    ],
)
def test_tt_shape_follows_its_table(mode, rows, columns):
    assert t3.tt_shape(768, 24, 3, mode) == (rows, columns)


@pytest.mark.parametrize(
    ("rank", "ranks"),
    [
        (1, (1, 1, 1, 1)),
        (5, (1, 4, 5, 1)),
        (1000, (1, 4, 9, 1)),
        ([2, 3], (1, 2, 3, 1)),
        ((4, 9), (1, 4, 9, 1)),
        ((1, 7, 11, 1), (1, 7, 11, 1)),
    ],
)
def test_an_int_rank_is_clipped_and_a_list_is_used_as_given(rank, ranks):
    assert train_ranks(((2, 5, 3), (2, 4, 3)), rank) == ranks


def test_no_rank_above_the_clipped_one_is_useful():
    """The largest rank of a bond is that of the unfolding of a random full-rank tensor."""
    ranks = train_ranks(((2, 3, 2), (1, 2, 3)), 10**9)
    assert ranks == (1, 2, 6, 1)


BAD_SHAPES = [
    (lambda: t3.factorize(0, 3), ValueError, "n must be at least 1; got 0"),
    (lambda: t3.factorize(12, 0), ValueError, "d must be at least 1; got 0"),
    (lambda: t3.factorize(12.0, 3), TypeError, "n must be an integer; got 12.0"),
    (lambda: t3.factorize(True, 3), TypeError, "got True"),
    (lambda: t3.factorize(12, 3, "random"), ValueError, "mode must be one of .* got 'random'"),
    (lambda: t3.suggest_shape(-1, 3), ValueError, "got -1"),
    (lambda: t3.tt_shape(8, 8, 2, "sideways"), ValueError, "shape_mode must be one of .* got 'sideways'"),
    (lambda: check_raw_shape("ab"), ValueError, "raw_shape must be a pair"),
    (lambda: check_raw_shape(((2, 3),)), ValueError, "raw_shape must be a pair"),
    (lambda: check_raw_shape((6, 8)), TypeError, "must be a sequence of integers; got 6"),
    (lambda: check_raw_shape(((), ())), ValueError, "at least one factor"),
    (lambda: check_raw_shape(((2, 3), (2, 3, 4))), ValueError, "2 row factors .* and 3 column factors"),
    (lambda: check_raw_shape(((2, 0), (2, 3))), ValueError, "each factor in raw_shape must be at least 1"),
    (lambda: train_ranks(((2, 2), (2, 2)), 0), ValueError, "The rank must be at least 1; got 0"),
    (lambda: train_ranks(((2, 2), (2, 2)), np.ones(1)), TypeError, "The rank must be an integer; got array"),
    (lambda: train_ranks(((2, 2), (2, 2)), "4"), TypeError, "The rank must be an integer"),
    (lambda: train_ranks(((2, 2), (2, 2)), [2, 2]), ValueError, "the 1 interior ranks of 2 cores"),
    (lambda: train_ranks(((2, 2), (2, 2)), [2, 2, 1]), ValueError, "the 1 interior ranks of 2 cores"),
    (lambda: train_ranks(((2, 2), (2, 2)), [1, 0, 1]), ValueError, "Each rank must be at least 1; got 0"),
    (lambda: train_ranks(((2, 2), (2, 2)), [2.0]), TypeError, "Each rank must be an integer"),
    (lambda: train_ranks(((2, 2), (2, 2)), [5]), ValueError, "must be at most 4.* got 5"),
    (lambda: train_ranks(((2, 2, 9), (1, 1, 1)), [1, 3]), ValueError, "must be at most 2.* got 3"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_SHAPES)
def test_invalid_shapes_raise(call, error, message):
    with pytest.raises(error, match=message):
        call()
