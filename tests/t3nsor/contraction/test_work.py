"""The work of the strategies, against the operations that torch counts and closed forms."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import t3nsor as t3
from t3nsor.contraction import Plan
from t3nsor.contraction.chains import Sizes
from t3nsor.contraction.strategy import Wanted
from t3nsor.contraction.work import LARGE, Device, Product, Work

TOKENS = 128
LAYERS = [
    (((12, 16, 16), (8, 8, 12)), 4),
    (((384, 8), (4, 192)), 2),
    (((64, 48, 1, 1), (1, 1, 24, 32)), 4),
    (((3072,), (768,)), 1),
    (((16, 12, 4, 4), (4, 4, 6, 8)), 8),
    (((4, 4, 4, 4, 3), (3, 4, 4, 4, 4)), 2),
]


def counted(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(("raw_shape", "rank"), LAYERS, ids=str)
def test_flops_match_torchs_counter(raw_shape, rank, format, strategies_of):
    """Without a frozen weight, since torch does not count products that are added in place."""
    network = t3.random_matrix(raw_shape, rank, format=format, device="meta")
    cores, sizes = network.cores, Sizes.of(network.cores)
    M, N = network.shape
    x, g = torch.empty(TOKENS, N, device="meta"), torch.empty(TOKENS, M, device="meta")
    for name in strategies_of(len(cores)):
        strategy = Plan.parse(name, len(cores)).product
        flops = strategy.product_work(TOKENS, sizes, False).flops
        assert flops == pytest.approx(counted(lambda w=strategy: w.product(x, cores, None, None)), rel=0.01), name
        for wanted in (Wanted.INPUT, Wanted.CORES, Wanted.BOTH):
            flops = strategy.gradient_work(TOKENS, sizes, False, wanted).flops
            true = counted(lambda w=strategy, a=wanted: w.gradients(x, g, cores, None, a))
            assert flops == pytest.approx(true, rel=0.01), (name, wanted)


@pytest.mark.parametrize(("raw_shape", "rank"), LAYERS, ids=str)
def test_a_frozen_weight_adds_one_product_unless_it_is_fused(raw_shape, rank, strategies_of):
    network = t3.random_matrix(raw_shape, rank, device="meta")
    sizes = Sizes.of(network.cores)
    M, N = network.shape
    for name in strategies_of(len(network.cores)):
        strategy = Plan.parse(name, len(network.cores)).product
        frozen = 0 if name == "fused" else 2 * TOKENS * M * N
        assert (
            strategy.product_work(TOKENS, sizes, True).flops - strategy.product_work(TOKENS, sizes, False).flops
            == frozen
        )
        for wanted in (Wanted.INPUT, Wanted.CORES, Wanted.BOTH):
            more = [strategy.gradient_work(TOKENS, sizes, has, wanted).flops for has in (True, False)]
            assert more[0] - more[1] == (frozen if Wanted.INPUT in wanted else 0), (name, wanted)


def test_halves_of_two_thin_factors_have_the_closed_form():
    """As in LoRA: T N r + T r M multiplications, the same for the gradients of the factors, and T N r recomputed."""
    strategy, sizes = Plan.parse("halves@1", 2).product, Sizes((3072, 1), (1, 768), (1, 8, 1))
    down, up = 2 * TOKENS * 768 * 8, 2 * TOKENS * 8 * 3072
    assert strategy.product_work(TOKENS, sizes, False).flops == down + up
    assert strategy.gradient_work(TOKENS, sizes, False, Wanted.INPUT).flops == down + up
    assert strategy.gradient_work(TOKENS, sizes, False, Wanted.BOTH).flops == 3 * down + 2 * up


def test_only_grouped_halves_copy_y_g_and_the_intermediate():
    """At bond 1 of (4, 6) x (3, 5), rank 2: M1 = 4, N1 = 3, M2 = 6, N2 = 5, and P has T N1 R M2 entries."""
    sizes, between = Sizes((4, 6), (3, 5), (1, 2, 1)), TOKENS * 3 * 2 * 6
    grouped, expanded = Plan.parse("halves@1", 2).product, Plan.parse("expanded@1", 2).product
    assert sorted(grouped.product_work(TOKENS, sizes, False).copies) == sorted([between, TOKENS * 24])
    for wanted, copies in (
        (Wanted.INPUT, [TOKENS * 24, between]),
        (Wanted.CORES, [TOKENS * 24, between, between]),
        (Wanted.BOTH, [TOKENS * 24, between, between]),
    ):
        assert sorted(grouped.gradient_work(TOKENS, sizes, False, wanted).copies) == sorted(copies)
        assert expanded.gradient_work(TOKENS, sizes, False, wanted).copies == (24 * 3 * 2 * 6,)


def test_core_by_core_copies_the_cores_whose_sides_are_not_adjacent_in_memory():
    """(4, 6) x (3, 5), rank 2: cores (1, 4, 3, 2) and (2, 6, 5, 1); the reversed order needs (r, m) and (n, s)."""
    forward, backward = Plan.parse("sequential", 2).product, Plan.parse("sequential_reversed", 2).product
    first, second = 4 * 3 * 2, 2 * 6 * 5
    layer = ((4, 6), (3, 5), (1, 2, 1))
    shared = sorted((TOKENS * 15, TOKENS * 5 * 4 * 2, TOKENS * 5 * 4 * 2, TOKENS * 24))  # the states
    assert sorted(forward.product_work(TOKENS, Sizes(*layer), False).copies) == sorted([*shared, first, second])
    assert {first, second} & {*backward.product_work(TOKENS, Sizes(*layer), False).copies} == set()
    assert {first, second} & {*forward.gradient_work(TOKENS, Sizes(*layer), False, Wanted.INPUT).copies} == set()
    assert {first, second} <= {*backward.gradient_work(TOKENS, Sizes(*layer), False, Wanted.INPUT).copies}
    for columns in ((3, 5), (1, 5)):  # of a core with one column, or with both ranks 1, a view serves
        sizes = Sizes((4, 6), columns, (1, 1, 1))
        assert forward.product_work(1, sizes, False).copies.count(0) == 2


@pytest.mark.parametrize("name", ["sequential", "sequential_reversed"])
@pytest.mark.parametrize("wanted", [None, Wanted.INPUT])
def test_copied_cores_are_those_that_einsum_copies(name, wanted):
    """By the largest tensor that a call allocates: states have 4,096 entries at most, the first core 65,536."""
    network = t3.random_matrix(((128, 2), (128, 2)), 4)
    cores, sizes = network.cores, Sizes.of(network.cores)
    strategy, x = Plan.parse(name, 2).product, torch.randn(1, 256)

    def run():
        if wanted is None:
            strategy.product(x, cores, None, None)
        else:
            strategy.gradients(x, x, cores, None, wanted)

    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    given = 1, sizes, False
    work = strategy.product_work(*given) if wanted is None else strategy.gradient_work(*given, wanted)
    expected = 128 * 128 * 4
    assert (max(event.nbytes() for event in events) == 4 * expected) == (expected in work.copies)


def test_a_product_counts_each_entry_once_and_an_added_result_twice():
    assert Product(2, 3, 5).flops == 60
    assert Product(2, 3, 5).moved == 6 + 15 + 10
    assert Product(2, 3, 5, added=True).moved == 6 + 15 + 20


def test_seconds_include_operations_bytes_copies_paging_and_launches():
    device = Device(flops=100.0, half=3.0, bandwidth=8.0, copying=4.0, paging=2.0, launch=0.5)
    assert device.seconds(Work((Product(2, 3, 5),), launches=1), 4) == max(60 / (100 * 2 / 5), 31 * 4 / 8) + 2 * 0.5
    assert device.seconds(Work((Product(100, 29, 100),)), 1) == pytest.approx(580_000 / (100 * 29 / 32) + 0.5)
    assert device.seconds(Work(copies=(7,)), 4) == 2 * 7 * 4 / 4
    fits = LARGE // 4
    for entries, fresh in ((fits, 0), (fits + 1, (fits + 1) * 4 / 2)):
        assert device.seconds(Work(copies=(entries,)), 4) == 2 * entries * 4 / 4 + fresh
        product = Product(entries, 1, 1)
        assert device.seconds(Work((product,)), 4) == product.moved * 4 / 8 + 0.5 + fresh
        added = Product(entries, 1, 1, added=True)
        assert device.seconds(Work((added,)), 4) == added.moved * 4 / 8 + 0.5


def test_work_adds_up():
    work = Work((Product(2, 3, 5),), copies=(7,), launches=1) + Work((Product(1, 1, 1),), copies=(1,), launches=2)
    assert work == Work((Product(2, 3, 5), Product(1, 1, 1)), copies=(7, 1), launches=3)
    assert work.flops == 60 + 2
    assert work.moved == 31 + 3 + 2 * 8


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(), 0.0),
        (Work(launches=3), 3 * 0.5),
        (Work(copies=(50,)), 2 * 50 * 4 / 10),
        (Work((Product(200, 200, 200),)), 0.5 + 2 * 200**3 / (1000 * 200 / 220)),  # by its operations
        (Work((Product(20, 200, 200),)), 0.5 + 2 * 20 * 200**2 / 500),  # half of the peak with a side of `half`
        (Work((Product(1, 1, 1),)), 0.5 + 3 * 4 / 4),  # by its bytes
    ],
)
def test_seconds_have_the_closed_form(work, seconds):
    device = Device(flops=1000.0, half=20.0, bandwidth=4.0, copying=10.0, paging=1e15, launch=0.5)
    if work.products and work.flops > 1000:
        device = Device(flops=1000.0, half=20.0, bandwidth=1e9, copying=10.0, paging=1e15, launch=0.5)
    assert device.seconds(work, itemsize=4) == pytest.approx(seconds)


def test_more_vectors_cost_more_with_every_strategy(strategies_of):
    device = Device(flops=1e11, half=12.0, bandwidth=1e10, copying=1e10, paging=1e15, launch=1e-6)
    sizes = Sizes((4, 6, 8), (8, 6, 4), (1, 4, 4, 1))
    for name in strategies_of(3):
        strategy = Plan.parse(name, 3).product
        product = [device.seconds(strategy.product_work(tokens, sizes, True), 4) for tokens in (1, 10, 1000)]
        gradients = [
            device.seconds(strategy.gradient_work(tokens, sizes, True, Wanted.BOTH), 4) for tokens in (1, 10, 1000)
        ]
        assert product == sorted(product)
        assert gradients == sorted(gradients)
