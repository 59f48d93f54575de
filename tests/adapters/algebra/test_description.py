"""The fields and patterns that describe trains: complete, and as few as possible."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor as t3
from adapters import TensorTrainLoRAConfig
from adapters.algebra.description import shape_and_rank

WIDE, NARROW, FLAT = ((4, 4), (2, 3)), ((2, 3), (4, 4)), ((1, 16), (6, 1))


def train(raw_shape, rank):
    return t3.matrix_with_random_cores(raw_shape, rank)


TABLE = {
    "equal trains": ({"0.wi": (WIDE, 2), "1.wi": (WIDE, 2)}, {"raw_shape": WIDE, "rank": 2}),
    "swapped sizes": ({"0.wi": (WIDE, 2), "0.wo": (NARROW, 2)}, {"raw_shape": WIDE, "rank": 2}),
    "ranks by name": (
        {"0.wi": (WIDE, 2), "1.wi": (WIDE, 2), "0.wo": (NARROW, 3)},
        {"raw_shape": WIDE, "rank": 2, "rank_pattern": {"wo": (3,)}},
    ),
    "a rank by path": (
        {"0.wi": (WIDE, 2), "1.wi": (WIDE, 4), "2.wi": (WIDE, 2)},
        {"raw_shape": WIDE, "rank": 2, "rank_pattern": {"1.wi": (4,)}},
    ),
    "shapes by name": (
        {"0.wi": (WIDE, 2), "1.wi": (WIDE, 2), "0.q": (FLAT, 2)},
        {"raw_shape": WIDE, "rank": 2, "shape_pattern": {"q": FLAT}},
    ),
    "a bond with a smaller useful rank": (
        {"0.wi": (((2, 2, 2), (1, 1, 1)), [2, 2])},
        {"raw_shape": ((2, 2, 2), (1, 1, 1)), "rank": 2},
    ),
    "listed ranks": (
        {"0.wi": (((2, 4, 4), (2, 2, 2)), [2, 3])},
        {"raw_shape": ((2, 4, 4), (2, 2, 2)), "rank": (2, 3)},
    ),
    "one core": ({"0.wi": (((6,), (4,)), 1)}, {"raw_shape": ((6,), (4,)), "rank": 1}),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_fields_are_as_few_as_possible(case):
    shapes, expected = TABLE[case]
    assert shape_and_rank({path: train(*shape) for path, shape in shapes.items()}) == expected


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from([f"block.{k}.{name}" for k in range(3) for name in ("wi", "wi_0", "wo")]),
        st.tuples(
            st.sampled_from([WIDE, NARROW, FLAT, ((2, 2, 4), (1, 3, 2)), ((16,), (6,)), ((6, 1), (1, 16))]),
            st.integers(1, 5),
        ),
        min_size=1,
    )
)
def test_a_configuration_with_the_fields_builds_the_trains(shapes):
    trains = {path: train(raw_shape, rank) for path, (raw_shape, rank) in shapes.items()}
    config = TensorTrainLoRAConfig(**shape_and_rank(trains))
    for path, wanted in trains.items():
        out_features, in_features = wanted.shape
        linear = config.build_at_path(path, in_features, out_features).linear
        assert (linear.raw_shape, linear.ranks) == (wanted.raw_shape, wanted.ranks), path
