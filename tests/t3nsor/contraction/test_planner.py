"""The choice of a plan: the fastest by the cost model or by the clock, reproducible for given sizes."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor as t3
from t3nsor.contraction import Plan, planner
from t3nsor.contraction.chains import Sizes
from t3nsor.contraction.device import DEFAULTS
from t3nsor.contraction.planner import Problem, Seconds, estimates, fastest, resolve
from t3nsor.contraction.sequential import Sequential
from t3nsor.contraction.strategy import Wanted
from t3nsor.contraction.work import Device

SEQUENTIAL, HALVES, MATERIALISED = (Plan.parse(name, 2).product for name in ("sequential", "halves@1", "materialised"))
DEVICES = [
    Device(flops=1e11, half=12.0, bandwidth=1e10, copying=1e10, paging=1e15, launch=1e-6),
    Device(flops=1e14, half=64.0, bandwidth=1e12, copying=1e12, paging=1e15, launch=1e-5),
]
SIZES = [
    Sizes((5,), (4,), (1, 1)),
    Sizes((24, 1), (1, 48), (1, 3, 1)),
    Sizes((48, 64), (24, 32), (1, 8, 1)),
    Sizes((12, 16, 16), (8, 8, 12), (1, 8, 8, 1)),
    Sizes((2, 3, 4, 5), (5, 4, 3, 2), (2, 3, 3, 3, 2)),
]


def seconds(both):
    return Seconds(
        product={SEQUENTIAL: 3.0, HALVES: 1.0, MATERIALISED: 2.0},
        input_gradient={SEQUENTIAL: 2.0, HALVES: 3.0, MATERIALISED: 1.0},
        core_gradients={SEQUENTIAL: 2.0, HALVES: 1.0, MATERIALISED: 3.0},
        both=both,
    )


@pytest.mark.parametrize(
    ("both", "gradients"),
    [
        ({}, (MATERIALISED, HALVES)),
        ({SEQUENTIAL: 2.5, HALVES: 2.5, MATERIALISED: 2.5}, (MATERIALISED, HALVES)),
        ({SEQUENTIAL: 1.5, HALVES: 2.5, MATERIALISED: 2.5}, (SEQUENTIAL, SEQUENTIAL)),
        ({HALVES: 1.9, MATERIALISED: 1.8}, (MATERIALISED, MATERIALISED)),
    ],
)
def test_both_gradients_use_one_strategy_where_that_is_cheaper(both, gradients):
    assert seconds(both).plan() == Plan(HALVES, *gradients)


def test_both_gradients_together_have_a_cost_of_their_own():
    together = seconds({})._replace(both={MATERIALISED: 9.0}, core_gradients={MATERIALISED: 1.0, HALVES: 1.5})
    assert together.plan() == Plan(HALVES, MATERIALISED, HALVES)


@settings(max_examples=60)
@given(
    tokens=st.integers(1, 10**6),
    sizes=st.sampled_from(SIZES),
    device=st.sampled_from(DEVICES),
    frozen=st.sampled_from([(False, False), (True, False), (True, True)]),
)
def test_auto_chooses_the_plan_with_the_lowest_estimate(tokens, sizes, device, frozen):
    problem = Problem(tokens, sizes, torch.float32, "cpu", *frozen)
    plan = estimates(problem, device).plan()

    def product(strategy):
        return device.seconds(strategy.product_work(tokens, sizes, frozen[0]), 4)

    def gradients(for_input, for_cores):
        if for_input == for_cores:
            return device.seconds(for_input.gradient_work(tokens, sizes, frozen[0], Wanted.BOTH), 4)
        apart = (for_input.gradient_work(tokens, sizes, frozen[0], Wanted.INPUT),)
        apart += (for_cores.gradient_work(tokens, sizes, frozen[0], Wanted.CORES),)
        return sum(device.seconds(work, 4) for work in apart)

    assert product(plan.product) <= 1.0001 * min(map(product, problem.strategies()))
    pairs = [*itertools.product(problem.strategies(Wanted.INPUT), problem.strategies(Wanted.CORES))]
    pairs = [pair for pair in pairs if pair[0] != pair[1]] + [(s, s) for s in problem.strategies(Wanted.BOTH)]
    cheapest = min(gradients(*pair) for pair in pairs)
    assert gradients(plan.input_gradient, plan.core_gradients) <= 1.0001 * cheapest


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_batch_may_have_any_length(sizes, dtype, frozen):
    names = {*estimates(Problem(1, sizes, dtype, "cpu", frozen, frozen), DEVICES[0]).product}
    for tokens in [0, 1, 2, 3, *(10**k + 1 for k in range(1, 9))]:
        for device_type in ("cpu", "cuda", "meta"):
            plan = fastest(Problem(tokens, sizes, dtype, device_type, frozen, frozen))
            assert {plan.product, plan.input_gradient} <= names


def test_any_batch_length_works_on_the_meta_device():
    network = t3.random_matrix(((12, 16, 16), (8, 8, 12)), 8, device="meta")
    weight = torch.empty(3072, 768, device="meta")
    for tokens in (0, 1, 10, 1000, 10**5, 10**6):
        x = torch.empty(tokens, 768, device="meta", requires_grad=True)
        t3.matmul(x, network, weight=weight).sum().backward()
        assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("x_dtype", "weight_dtype", "fusable"),
    [
        (torch.float32, None, False),
        (torch.float32, torch.float32, True),
        (torch.float64, torch.float64, True),
        (torch.bfloat16, torch.bfloat16, False),
        (torch.float16, torch.float16, False),
        (torch.bfloat16, torch.float32, False),
        (torch.float32, torch.bfloat16, False),
    ],
)
def test_a_16_bit_weight_is_never_fused(x_dtype, weight_dtype, fusable, random_network):
    cores = random_network(dtype=torch.float32).cores
    weight = None if weight_dtype is None else torch.randn(24, 12).to(weight_dtype)
    for tokens in (1, 16, 4096):
        x = torch.empty(tokens, 12, dtype=x_dtype)
        assert Problem.of(x, cores, weight).fusable == fusable
        for plan in ("auto", "timed") if tokens < 4096 else ("auto",):
            names = str(resolve(plan, x, cores, weight))
            assert fusable or "fused" not in names


def test_a_large_batch_through_a_float32_weight_is_fused():
    cores = t3.random_matrix(((48, 64), (24, 32)), 8, device="meta").cores
    x, weight = torch.empty(10**5, 768, device="meta"), torch.empty(3072, 768, device="meta")
    plan = resolve("auto", x, cores, weight)
    assert [str(strategy) for strategy in plan.strategies[:2]] == ["fused", "fused"]
    assert str(plan.core_gradients) != "fused"


@pytest.mark.parametrize("plan", ["auto", "timed", "halves@1"])
def test_an_empty_batch_uses_materialised(plan, random_network):
    assert resolve(plan, torch.empty(0, 12), random_network().cores, None) == Plan.parse("materialised", 3)


def test_a_named_plan_is_used_as_given(random_network):
    cores, x = random_network().cores, torch.empty(4, 12)
    for text in ("sequential", "fused, halves@1, sequential_reversed"):
        assert resolve(text, x, cores, None) == Plan.parse(text, 3)


@pytest.fixture
def clock(monkeypatch):
    """A clock for which "halves@2" is the fastest strategy; yields the numbers of vectors that it was asked to time."""
    asked = []

    def timings(problem, device):
        asked.append(problem.tokens)
        real = estimates(problem, DEVICES[0])
        return Seconds(*({strategy: float(str(strategy) != "halves@2") for strategy in costs} for costs in real))

    planner.timed.cache_clear()
    monkeypatch.setattr(planner, "timings", timings)
    yield asked
    planner.timed.cache_clear()


def test_timed_chooses_the_fastest_by_the_clock_and_caches_it(clock, random_network):
    cores = random_network().cores
    for tokens in (5, 6, 7, 8, 5):
        assert resolve("timed", torch.empty(tokens, 12), cores, None) == Plan.parse("halves@2", 3)
    assert clock == [8]
    resolve("timed", torch.empty(9, 12), cores, None)
    resolve("timed", torch.empty(1, 12), cores, None)
    assert clock == [8, 16, 1]


def test_auto_does_not_use_the_clock(clock, random_network):
    resolve("auto", torch.empty(5, 12), random_network().cores, None)
    assert clock == []


def test_on_the_meta_device_timed_is_auto(clock):
    network = t3.random_matrix(((4, 6), (3, 4)), 2, device="meta")
    x = torch.empty(5, 12, device="meta")
    assert resolve("timed", x, network.cores, None) == resolve("auto", x, network.cores, None)
    assert clock == []


def test_batches_of_varying_length_share_few_plans():
    planner._fastest.cache_clear()
    for tokens in range(512, 1024):
        fastest(Problem(tokens, SIZES[3], torch.float32, "cpu", True, True))
    assert planner._fastest.cache_info().misses == 4
    exact = [2**k for k in range(15)]
    assert [fastest(Problem(t, SIZES[3], torch.float32, "cpu", True, True)) for t in exact] == [
        estimates(Problem(t, SIZES[3], torch.float32, "cpu", True, True), DEFAULTS["cpu", torch.float32]).plan()
        for t in exact
    ]


@pytest.mark.parametrize("frozen", [False, True])
def test_every_strategy_is_timed_on_tensors_of_these_sizes(frozen, format, random_network, monkeypatch):
    cores = random_network(format=format, rank=2).cores
    runs = []
    monkeypatch.setattr(planner, "shortest", lambda run, device, rounds: runs.append(run()) or float(len(runs)))
    problem = Problem(4, Sizes.of(cores), torch.float32, "cpu", frozen, frozen)
    timed = planner.timings(problem, torch.device("cpu"))
    assert [*map(list, timed)] == [*map(list, estimates(problem, DEVICES[0]))]
    assert len(runs) == sum(map(len, timed))
    products = runs[: len(timed.product)]
    assert {tuple(y.shape) for y in products} == {(4, 24)}
    assert all(torch.allclose(y, products[0], rtol=1e-4, atol=1e-4) for y in products)
    assert {tuple(r[0].shape) for r in runs[len(products) :] if r[0] is not None} == {(4, 12)}


def test_a_strategy_that_needs_far_more_memory_than_x_and_y_is_excluded():
    """Core by core from the first on, ((192, 16), (1, 768)) at rank 4 needs 192 * 4 * 768 entries for each vector."""
    sizes = Sizes((192, 16), (1, 768), (1, 4, 1))
    problem = Problem(1024, sizes, torch.float32, "cpu", True, True)
    names = {*map(str, problem.strategies())}
    assert "sequential" not in names
    assert {"sequential_reversed", "halves@1", "fused"} <= names
    assert "sequential_reversed" not in {*map(str, problem.strategies(Wanted.INPUT))}
    assert Sequential().product_work(1024, sizes, True).largest == 1024 * 192 * 4 * 768


def test_timing_does_not_change_the_random_state():
    before = torch.get_rng_state()
    t3.explain((4, 24), t3.random_matrix(((4, 6), (6, 4)), 2), measure=True)
    drawn = torch.get_rng_state()
    t3.matmul(torch.ones(3, 24), t3.TensorTrain([torch.ones(1, 24, 24, 1)]), "timed")
    assert torch.equal(drawn, torch.get_rng_state())
    assert not torch.equal(before, drawn)  # random_matrix draws


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("tokens", [1, 3, 100])
def test_a_ring_of_ranks_far_larger_than_its_factors_has_a_plan(tokens, frozen):
    ring = t3.random_matrix(((2, 2), (2, 2)), 20, format="tensor_ring", dtype=torch.float64)
    problem = Problem.make(tokens, Sizes.of(ring.cores), torch.float64, "cpu", torch.float64 if frozen else None)
    assert all(problem.strategies(wanted) for wanted in (None, Wanted.INPUT, Wanted.CORES, Wanted.BOTH))
    x = torch.randn(tokens, 4, dtype=torch.float64)
    weight = torch.randn(4, 4, dtype=torch.float64) if frozen else None
    expected = x @ (ring.full() if weight is None else ring.full() + weight).T
    torch.testing.assert_close(t3.matmul(x, ring, weight=weight), expected)
