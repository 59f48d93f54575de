import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor as t3
from t3nsor.contraction import gather_rows

RAW_SHAPES = [
    ((5,), (4,)),
    ((2, 3), (4, 2)),
    ((2, 3, 4), (3, 2, 2)),
    ((1, 1, 12), (4, 3, 2)),
    ((2, 1, 3, 2), (1, 3, 2, 2)),
    ((2, 2, 2, 2, 2), (2, 1, 2, 1, 2)),
    ((2, 2, 2, 2, 2, 2), (2, 2, 1, 1, 2, 2)),
]
PLANS = ["auto", "sequential", "materialised"]


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
@pytest.mark.parametrize("rank", [1, 2, 50])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("raw_shape", RAW_SHAPES)
def test_matmul_is_the_dense_product(raw_shape, plan, rank, format, dense_of):
    rank = min(rank, 4) if format == "tensor_ring" else rank
    network = t3.random_matrix(raw_shape, rank, format=format, dtype=torch.float64)
    x = torch.randn(7, network.shape[1], dtype=torch.float64)
    expected = x @ dense_of(network.cores).T
    torch.testing.assert_close(t3.matmul(x, network, plan), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3), (2, 1, 4), (0,), (3, 0)])
def test_any_batch_dimensions(batch, plan, dense_of):
    tt = t3.random_matrix(((2, 3, 4), (3, 2, 2)), 3, dtype=torch.float64)
    x = torch.randn(*batch, 12, dtype=torch.float64)
    torch.testing.assert_close(t3.matmul(x, tt, plan), x @ dense_of(tt.cores).T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    "strided",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x[::2, :, :],
        lambda x: x[:, :1].expand(-1, 5, -1),
        lambda x: x.flip(-1),
        lambda x: torch.randn(12, 4, 3, dtype=torch.float64).permute(2, 1, 0),
    ],
)
def test_any_strides_of_input_and_cores(strided, plan, dense_of):
    cores = [core.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for core in random_cores()]
    assert not cores[1].is_contiguous()
    x = strided(torch.randn(4, 3, 12, dtype=torch.float64))
    y = t3.matmul(x, t3.TensorTrain(cores), plan)
    torch.testing.assert_close(y, x @ dense_of(cores).T, rtol=1e-11, atol=1e-11)


def random_cores(dtype=torch.float64):
    return t3.random_matrix(((2, 3, 4), (3, 2, 2)), 3, dtype=dtype).cores


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
@pytest.mark.parametrize("plan", PLANS)
def test_gradients(plan, format):
    network = t3.random_matrix(((2, 2), (2, 3)), 2, format=format, dtype=torch.float64)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    cores = [core.requires_grad_() for core in network.cores]
    assert torch.autograd.gradcheck(lambda x, *cores: t3.matmul(x, type(network)(cores), plan), (x, *cores))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("cores_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_result_has_the_dtype_of_x_and_is_computed_in_the_wider_one(x_dtype, cores_dtype, plan, dense_of):
    cores = random_cores(cores_dtype)
    x = torch.randn(5, 12).to(x_dtype)
    y = t3.matmul(x, t3.TensorTrain(cores), plan)
    expected = x.double() @ dense_of(cores).T
    assert y.dtype == x_dtype
    wider = torch.promote_types(x_dtype, cores_dtype)
    rounded_once, accumulated = torch.finfo(x_dtype).eps, 32 * torch.finfo(wider).eps
    torch.testing.assert_close(y.double(), expected, rtol=rounded_once, atol=accumulated)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_autocast_gives_the_dtype_that_linear_gives(x_dtype, plan):
    tt = t3.TensorTrain(random_cores(torch.float32))
    x = torch.randn(5, 12, dtype=x_dtype)
    weight = tt.full() if x_dtype != torch.float64 else tt.full().double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, linear = t3.matmul(x, tt, plan), torch.nn.functional.linear(x, weight)
    assert y.dtype == linear.dtype
    torch.testing.assert_close(y, linear, rtol=0.05, atol=0.05)


def test_autocast_does_not_touch_the_algebra_of_cores(dense_of):
    tt = t3.TensorTrain(random_cores(torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full, dot, product, rounded = tt.full(), tt.dot(tt), tt @ tt.T, tt.round()
    dense = dense_of(tt.cores).float()
    for result, expected in [
        (full, dense),
        (dot, (dense * dense).sum()),
        (product.full(), dense @ dense.T),
        (rounded.full(), dense),
    ]:
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("plan", PLANS)
def test_compiles_without_graph_breaks(plan):
    cores = random_cores(torch.float32)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def compiled(x, *cores):
        return t3.matmul(x, t3.TensorTrain(cores), plan)

    for batch in (2, 5):
        x = torch.randn(batch, 12)
        torch.testing.assert_close(compiled(x, *cores), t3.matmul(x, t3.TensorTrain(cores), plan))


@pytest.mark.parametrize("plan", ["auto", "sequential"])
def test_core_activation_acts_after_every_core_but_the_last(plan):
    tt = t3.random_matrix(((2, 3), (4, 2)), 3, dtype=torch.float64)
    x = torch.randn(5, 8, dtype=torch.float64)
    first, last = tt.cores[0][0], tt.cores[1][..., 0]
    between = torch.tanh(torch.einsum("bin,mis->bmsn", x.reshape(5, 4, 2), first))
    expected = torch.einsum("bmsn,sln->bml", between, last).reshape(5, 6)
    torch.testing.assert_close(t3.matmul(x, tt, plan, torch.tanh), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(0, 4096),
    raw_shape=st.sampled_from([*RAW_SHAPES, ((12, 16, 16), (8, 8, 12)), ((1,), (1,))]),
    rank=st.integers(1, 64),
)
def test_auto_takes_the_plan_with_the_fewest_flops(batch, raw_shape, rank):
    tt = t3.random_matrix(raw_shape, rank, device="meta")
    explanation = t3.explain((batch, tt.shape[1]), tt)
    assert explanation.chosen == min(explanation.costs, key=lambda cost: cost.flops).plan


def test_flops_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    tt = t3.random_matrix(((12, 16, 16), (8, 8, 12)), 4, device="meta")
    x = torch.empty(2, 64, 768, device="meta")
    for plan, flops, _ in t3.explain(x.shape, tt).costs:
        with FlopCounterMode(display=False) as counter:
            t3.matmul(x, tt, plan)
        assert flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_explain_prints_a_table():
    tt = t3.random_matrix(((12, 16, 16), (8, 8, 12)), 4, device="meta")
    few, many = t3.explain((8, 768), tt), t3.explain((8, 4, 768), tt)
    assert many.costs[0].bytes == 4 * few.costs[0].bytes
    lines = str(few).splitlines()
    assert lines[0].split() == ["plan", "flops", "bytes"]
    assert [line.split()[0] for line in lines[1:]] == ["sequential", "materialised"]
    assert [line.endswith("<- auto") for line in lines[1:]] == [True, False]


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (0,)])
def test_gather_rows_picks_rows_of_the_dense_matrix(shape, format, dense_of):
    network = t3.random_matrix(((2, 3, 4), (3, 2, 2)), 3, format=format, dtype=torch.float64)
    indices = torch.randint(0, 24, shape)
    torch.testing.assert_close(gather_rows(network, indices), dense_of(network.cores)[indices], rtol=1e-12, atol=1e-12)


BAD_CALLS = [
    (lambda tt: t3.matmul(torch.ones(2, 11), tt), ValueError, r"must be 12, but its shape is \(2, 11\)"),
    (lambda tt: t3.matmul(torch.tensor(1.0), tt), ValueError, r"but its shape is \(\)"),
    (lambda tt: t3.matmul(torch.ones(2, 12, dtype=torch.int64), tt), TypeError, "but torch.int64 was given"),
    (lambda tt: t3.matmul(torch.ones(2, 12), tt, "fast"), ValueError, "plan must be one of auto, sequential, mater"),
    (lambda tt: t3.matmul(torch.ones(2, 12), tt, "materialised", torch.relu), ValueError, "needs them one by one"),
    (lambda tt: t3.explain((2, 11), tt), ValueError, r"x_shape must end with 12, but \(2, 11\)"),
    (lambda tt: t3.matmul([1.0] * 12, tt), TypeError, "but list was given"),
    (lambda tt: t3.matmul(torch.ones(2, 12, device="meta"), tt), ValueError, "it is on meta and they on cpu"),
    (lambda tt: t3.explain(12, tt), ValueError, "x_shape must end with 12, but 12"),
    (lambda tt: t3.explain((), tt), ValueError, "x_shape must end with 12"),
]


@pytest.mark.parametrize(("call", "error", "sentence"), BAD_CALLS)
def test_bad_input_is_refused_with_a_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(t3.TensorTrain(random_cores(torch.float32)))
