"""Plans as text: three ways, one way for all three, and what is refused."""

import itertools
import pickle

import pytest

from t3nsor.contraction import Plan
from t3nsor.contraction.chains import Sizes
from t3nsor.contraction.plans import WIDEST_EXPANSION, ways


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_a_plan_is_read_from_what_it_prints(cores, ways_of):
    for names in itertools.product(ways_of(cores), repeat=3):
        plan = Plan.parse(", ".join(names), cores)
        assert tuple(map(str, plan.ways[:2])) == names[:2]
        assert str(plan.core_gradients) == names[2].replace("fused", "materialised")
        assert Plan.parse(str(plan), cores) == plan
        assert pickle.loads(pickle.dumps(plan)) == plan


def test_one_way_is_taken_for_all_three(ways_of):
    for name in ways_of(4):
        assert Plan.parse(name, 4) == Plan.parse(f"{name}, {name}, {name}", 4)


def test_the_gradients_of_the_cores_have_nothing_to_be_fused_with():
    fused = Plan.parse("fused", 2).product
    assert Plan(fused, fused, fused) == Plan.parse("fused, fused, materialised", 2)


def test_spaces_are_of_no_importance():
    assert Plan.parse(" fused,halves@1 ,  materialised", 2) == Plan.parse("fused, halves@1, materialised", 2)


@pytest.mark.parametrize(
    ("text", "cores", "sentence"),
    [
        ("fast", 3, "plan must be one of auto, timed, sequential, .*, but 'fast' was given"),
        ("", 3, "plan must be one of auto"),
        ("None", 3, "plan must be one of auto"),
        ("auto, fused, fused", 3, "plan must be one of auto, .*or three of the latter"),
        ("fused, fused", 3, "three for the product, the gradient of x and those of the cores, but .* has 2"),
        ("fused, fused, fused, fused", 3, "has 4"),
        ("halves@0", 3, r"The bond of halves@k must lie between two of the 3 cores, but 'halves@0' .*@1 to halves@2"),
        ("halves@3", 3, "but 'halves@3' was given"),
        ("halves@-1", 3, "but 'halves@-1' was given"),
        ("halves@", 3, "but 'halves@' was given"),
        ("halves", 3, "but 'halves' was given"),
        ("expanded@x", 3, "The bond of expanded@k"),
        ("halves@1", 1, "a single core has none, so use another way"),
        ("fused@1", 3, "plan must be one of"),
    ],
)
def test_what_is_no_plan_is_refused_with_a_sentence(text, cores, sentence):
    with pytest.raises(ValueError, match=sentence):
        Plan.parse(text, cores)


@pytest.mark.parametrize("fusable", [False, True])
def test_all_ways_are_thought_of_that_may_be_worth_it(raw_shape, fusable, ways_of):
    d = len(raw_shape[0])
    sizes = Sizes(*raw_shape, (1, *[2] * (d - 1), 1))
    names = [str(way) for way in ways(sizes, fusable)]
    assert set(names) <= set(ways_of(d))
    assert len(names) == len(set(names))
    assert {"sequential", "sequential_reversed", *(f"halves@{bond}" for bond in range(1, d))} <= set(names)
    assert ("fused" in names, "materialised" in names) == (fusable, not fusable)


def test_a_half_is_written_out_only_where_that_is_small_and_of_use():
    def listed(rows, columns, rank):
        return "expanded@1" in [str(way) for way in ways(Sizes(rows, columns, (1, rank, 1)), False)]

    assert listed((8, WIDEST_EXPANSION // 4), (2, 8), 2)
    assert not listed((8, WIDEST_EXPANSION // 4), (2, 8), 3)
    assert not listed((8, 1), (2, 8), 2)
