"""Plans as text: three strategies, one strategy for all three, and invalid plans."""

import itertools
import pickle

import pytest

from t3nsor.contraction import Plan
from t3nsor.contraction.chains import Sizes
from t3nsor.contraction.plans import WIDEST_EXPANSION, candidates


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_a_plan_round_trips_through_its_text(cores, strategies_of):
    for names in itertools.product(strategies_of(cores), repeat=3):
        plan = Plan.parse(", ".join(names), cores)
        assert tuple(map(str, plan.strategies[:2])) == names[:2]
        assert str(plan.core_gradients) == names[2].replace("fused", "materialised")
        assert Plan.parse(str(plan), cores) == plan
        assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_single_strategy_applies_to_all_three_contractions(strategies_of):
    for name in strategies_of(4):
        assert Plan.parse(name, 4) == Plan.parse(f"{name}, {name}, {name}", 4)


def test_for_the_gradients_of_the_cores_fused_becomes_materialised():
    fused = Plan.parse("fused", 2).product
    assert Plan(fused, fused, fused) == Plan.parse("fused, fused, materialised", 2)


def test_whitespace_is_ignored():
    assert Plan.parse(" fused,halves@1 ,  materialised", 2) == Plan.parse("fused, halves@1, materialised", 2)


@pytest.mark.parametrize(
    ("text", "cores", "message"),
    [
        ("fast", 3, "plan must be one of auto, timed, sequential, .*; got 'fast'"),
        ("", 3, "plan must be one of auto"),
        ("None", 3, "plan must be one of auto"),
        ("auto, fused, fused", 3, "plan must be one of auto, .*or three of the latter"),
        ("fused, fused", 3, "three for the product, the gradient of x and the gradients of the cores; got .* with 2"),
        ("fused, fused, fused, fused", 3, "with 4"),
        (
            "halves@0",
            3,
            r"The bond of halves@k must lie between two of the 3 cores; got 'halves@0': use halves@1 to halves@2",
        ),
        ("halves@3", 3, "got 'halves@3'"),
        ("halves@-1", 3, "got 'halves@-1'"),
        ("halves@", 3, "got 'halves@'"),
        ("halves", 3, "got 'halves'"),
        ("expanded@x", 3, "The bond of expanded@k"),
        ("halves@1", 1, "a single core has no bond, use another plan"),
        ("fused@1", 3, "plan must be one of"),
    ],
)
def test_an_invalid_plan_raises(text, cores, message):
    with pytest.raises(ValueError, match=message):
        Plan.parse(text, cores)


@pytest.mark.parametrize("fusable", [False, True])
def test_candidates_include_every_strategy_that_may_be_fastest(raw_shape, fusable, strategies_of):
    d = len(raw_shape[0])
    sizes = Sizes(*raw_shape, (1, *[2] * (d - 1), 1))
    names = [str(strategy) for strategy in candidates(sizes, fusable)]
    assert set(names) <= set(strategies_of(d))
    assert len(names) == len(set(names))
    assert {"sequential", "sequential_reversed", *(f"halves@{bond}" for bond in range(1, d))} <= set(names)
    assert ("fused" in names, "materialised" in names) == (fusable, not fusable)


def test_expanded_halves_are_candidates_only_if_small_and_useful():
    def listed(rows, columns, rank):
        return "expanded@1" in map(str, candidates(Sizes(rows, columns, (1, rank, 1)), False))

    assert listed((8, WIDEST_EXPANSION // 4), (2, 8), 2)
    assert not listed((8, WIDEST_EXPANSION // 4), (2, 8), 3)
    assert not listed((8, 1), (2, 8), 2)
