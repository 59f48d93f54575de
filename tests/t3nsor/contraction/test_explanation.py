"""The table of all strategies: sorted, printed, and with measured seconds on request."""

import pytest
import torch

import t3nsor as t3
from t3nsor.contraction.planner import resolve

TABLES = ("product", "input_gradient", "core_gradients")


def large(**arguments):
    return t3.random_matrix(((12, 16, 16), (8, 8, 12)), 4, **{"device": "meta", **arguments})


@pytest.mark.parametrize("frozen_weight", [False, True])
@pytest.mark.parametrize("tokens", [0, 1, 64, 10**5])
def test_rows_are_sorted_and_auto_chooses_the_fastest_product(tokens, frozen_weight):
    network = large()
    explained = t3.explain((tokens, 768), network, frozen_weight=frozen_weight)
    for name in TABLES:
        seconds = [cost.seconds for cost in getattr(explained, name)]
        assert seconds == sorted(seconds)
        assert len({cost.strategy for cost in getattr(explained, name)}) == len(seconds)
    assert str(explained.plan.product) == explained.product[0].strategy
    weight = torch.empty(network.shape, device="meta") if frozen_weight else None
    if tokens:
        assert explained.plan == resolve("auto", torch.empty(tokens, 768, device="meta"), network.cores, weight)


def test_every_strategy_has_a_row(strategies_of):
    explained = t3.explain((64, 768), large(), frozen_weight=True)
    names = {name: {cost.strategy for cost in getattr(explained, name)} for name in TABLES}
    always = {"sequential", "sequential_reversed", "halves@1", "halves@2"}
    for rows in names.values():
        assert always <= rows <= set(strategies_of(3))
    assert ["fused" in names[name] for name in TABLES] == [True, True, False]
    assert "materialised" in names["core_gradients"]


def test_a_frozen_weight_in_16_bits_has_no_row_that_fuses_it():
    explained = t3.explain((64, 768), large(dtype=torch.bfloat16), frozen_weight=True)
    assert "fused" not in {cost.strategy for name in TABLES for cost in getattr(explained, name)}


def test_batch_dimensions_are_flattened():
    many = t3.explain((8, 4, 768), large())
    assert many == t3.explain([32, 768], large())
    assert t3.explain((768,), large()) == t3.explain((1, 768), large())


def test_bytes_and_operations_scale_with_the_vectors():
    few, many = (
        {cost.strategy: cost for cost in t3.explain((tokens, 768), large()).product}["sequential"] for tokens in (8, 32)
    )
    assert many.flops == 4 * few.flops
    # all but the cores and the read of each, which are the same for more vectors
    assert 3 * few.bytes < many.bytes < 4 * few.bytes
    assert many.launches == few.launches


def test_it_prints_a_table():
    explained = t3.explain((32, 768), large(), frozen_weight=True)
    title, plan, *tables = str(explained).split("\n")
    assert title == "32 vectors, 768 -> 3072 and a frozen weight, float32 on meta"
    assert plan == f"auto: {explained.plan}"
    blocks = "\n".join(tables).strip().split("\n\n")
    assert len(blocks) == 3
    heads = ("product", "gradient of x", "gradients of the cores")
    for block, head, name, chosen in zip(blocks, heads, TABLES, explained.plan.strategies, strict=True):
        header, *rows = block.splitlines()
        assert header.startswith(f"{head:<24}")
        assert header[24:].split() == ["MFLOP", "MB", "moved", "kernels", "estimated", "ms", "measured", "ms"]
        assert [row.split()[0] for row in rows] == [cost.strategy for cost in getattr(explained, name)]
        assert [row.split()[0] for row in rows if row.endswith("<- auto")] == [str(chosen)]
        assert float(rows[0].split()[1].replace(",", "")) == round(getattr(explained, name)[0].flops / 1e6, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("frozen_weight", [False, True])
def test_measured_seconds_are_beside_the_estimates(frozen_weight, dtype, random_network):
    network = random_network(dtype=dtype)
    explained = t3.explain((8, 12), network, frozen_weight=frozen_weight, measure=True)
    estimated = t3.explain((8, 12), network, frozen_weight=frozen_weight)
    for name in TABLES:
        measured = getattr(explained, name)
        assert all(isinstance(cost.measured, float) and cost.measured > 0 for cost in measured)
        assert tuple(cost._replace(measured=None) for cost in measured) == getattr(estimated, name)
    assert explained.plan == estimated.plan
    row = str(explained).splitlines()[4].removesuffix("  <- auto")
    assert row.endswith(f"{explained.product[0].measured * 1e3:,.3f}")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t3.explain((2, 11), large()), r"x_shape must end with 768; got \(2, 11\)"),
        (lambda: t3.explain(768, large()), "x_shape must end with 768; got 768"),
        (lambda: t3.explain((), large()), "x_shape must end with 768"),
        (lambda: t3.explain((2, 768), large(), measure=True), "got one on the meta device: build it on another"),
    ],
)
def test_invalid_input_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_empty_batch_cannot_be_timed():
    tt = t3.random_matrix(((2, 3), (3, 2)), 2)
    assert t3.explain((0, 6), tt).plan
    with pytest.raises(ValueError, match=r"at least one vector; got x_shape = \(0, 6\)"):
        t3.explain((0, 6), tt, measure=True)


@pytest.mark.parametrize(("frozen_weight", "computed"), [(True, "bfloat16"), (False, "float32")])
def test_costs_are_for_the_dtype_in_which_matmul_computes(frozen_weight, computed):
    network = large(dtype=torch.float32)
    explained = t3.explain((64, 768), network, frozen_weight=frozen_weight, dtype=torch.bfloat16)
    assert f", {computed} on " in explained.title
    in_it = t3.explain((64, 768), network, frozen_weight=frozen_weight, dtype=getattr(torch, computed))
    assert explained == in_it
