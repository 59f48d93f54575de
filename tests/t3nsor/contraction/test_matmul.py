"""The product and its gradients by every strategy and plan, against dense algebra in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import t3nsor as t3
from t3nsor.contraction import Plan
from t3nsor.contraction.strategy import Wanted

PLANS = ["auto", "timed", "sequential", "halves@1", "materialised", "fused, halves@2, sequential_reversed"]


@pytest.mark.parametrize("frozen", [False, True])
def test_every_strategy_matches_dense_algebra_with_all_gradients(
    raw_shape, format, frozen, random_network, strategies_of, step, dense_step
):
    network = random_network(raw_shape, 3 if format == "tensor_train" else 2, format)
    M, N = network.shape
    x, g, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((7, N), (7, M), (M,)))
    weight = torch.randn(M, N, dtype=torch.float64) if frozen else None
    expected = dense_step(network, x, g, weight, bias)
    for plan in [*strategies_of(len(network.cores)), "auto", "timed"]:
        torch.testing.assert_close(
            step(plan, network, x, g, weight, bias), expected, rtol=1e-10, atol=1e-10, msg=lambda m, p=plan: f"{p}: {m}"
        )


@pytest.mark.parametrize("frozen", [False, True])
def test_every_mixed_plan_matches_dense_algebra_with_all_gradients(
    format, frozen, random_network, strategies_of, step, dense_step
):
    network = random_network(((2, 3), (4, 2)), 3, format)
    x, g = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    weight = torch.randn(6, 8, dtype=torch.float64) if frozen else None
    expected = dense_step(network, x, g, weight)
    for names in itertools.product(strategies_of(2), repeat=3):
        plan = ", ".join(names)
        torch.testing.assert_close(
            step(plan, network, x, g, weight), expected, rtol=1e-10, atol=1e-10, msg=lambda m, p=plan: f"{p}: {m}"
        )


SITES = {
    "in, site, site, out": [(1, 1, 4, 3), (3, 1, 1, 2), (2, 1, 1, 5), (5, 6, 1, 1)],
    "out, site, in": [(1, 6, 1, 3), (3, 1, 1, 3), (3, 1, 4, 1)],
    "site, in, out": [(1, 1, 1, 3), (3, 1, 4, 3), (3, 6, 1, 1)],
    "in, out, site": [(1, 1, 4, 3), (3, 6, 1, 3), (3, 1, 1, 1)],
    "site, both, site": [(1, 1, 1, 4), (4, 3, 2, 3), (3, 1, 1, 1)],
    "site, site": [(1, 1, 1, 3), (3, 1, 1, 1)],
    "a ring of sites and both": [(2, 1, 1, 3), (3, 3, 2, 4), (4, 1, 1, 2)],
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", SITES)
def test_cores_with_unit_factors_match_dense_algebra_by_every_strategy(name, frozen, strategies_of, step, dense_step):
    """One site of a tensor over many sites is such a slice, with ranks larger than its shape can use."""
    cores = [torch.randn(shape, dtype=torch.float64) for shape in SITES[name]]
    network = (t3.TensorRing if cores[0].shape[0] > 1 else t3.TensorTrain)(cores)
    M, N = network.shape
    x, g, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((7, N), (7, M), (M,)))
    weight = torch.randn(M, N, dtype=torch.float64) if frozen else None
    expected = dense_step(network, x, g, weight, bias)
    for plan in [*strategies_of(len(cores)), "auto", "timed"]:
        torch.testing.assert_close(
            step(plan, network, x, g, weight, bias), expected, rtol=1e-10, atol=1e-10, msg=lambda m, p=plan: f"{p}: {m}"
        )


@pytest.mark.parametrize("wanted", Wanted.__members__.values(), ids=str)
def test_every_strategy_returns_the_wanted_gradients_and_none_for_others(
    wanted, random_network, strategies_of, dense_step
):
    network, weight = random_network(), torch.randn(24, 12, dtype=torch.float64)
    x, g = torch.randn(4, 12, dtype=torch.float64), torch.randn(4, 24, dtype=torch.float64)
    _, for_input, *for_cores = dense_step(network, x, g, weight)
    for name in strategies_of(3):
        strategy = Plan.parse(name, 3).product
        found = strategy.gradients(x, g, network.cores, weight, wanted)
        assert [part is not None for part in found] == [Wanted.INPUT in wanted, Wanted.CORES in wanted]
        if Wanted.INPUT in wanted:
            torch.testing.assert_close(found[0], for_input, rtol=1e-10, atol=1e-10)
        if Wanted.CORES in wanted:
            torch.testing.assert_close(found[1], for_cores, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("rank", [1, 50])
def test_the_smallest_and_the_largest_rank(rank, plan, random_network, step, dense_step):
    network = random_network(rank=rank)
    x, g = torch.randn(4, 12, dtype=torch.float64), torch.randn(4, 24, dtype=torch.float64)
    torch.testing.assert_close(step(plan, network, x, g), dense_step(network, x, g), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3), (2, 1, 4), (0,), (3, 0)])
def test_any_batch_dimensions(batch, plan, frozen, biased, random_network, step, dense_step):
    network = random_network()
    x, g = torch.randn(*batch, 12, dtype=torch.float64), torch.randn(*batch, 24, dtype=torch.float64)
    weight = torch.randn(24, 12, dtype=torch.float64) if frozen else None
    bias = torch.randn(24, dtype=torch.float64) if biased else None
    torch.testing.assert_close(
        step(plan, network, x, g, weight, bias), dense_step(network, x, g, weight, bias), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    "strided",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x[::2, :, :],
        lambda x: x[:, :1].expand(-1, 5, -1),
        lambda x: x.flip(-1),
        lambda x: x[..., :1].expand(x.shape),
        lambda x: torch.randn(x.shape[-1], 4, 3, dtype=torch.float64).permute(2, 1, 0),
        lambda x: torch.randn(x.shape[-1], 5, dtype=torch.float64).T,
    ],
)
def test_any_strides(strided, plan, random_network, step, dense_step):
    cores = [core.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for core in random_network().cores]
    assert not cores[1].is_contiguous()
    x, g = (strided(torch.randn(4, 3, size, dtype=torch.float64)) for size in (12, 24))
    weight = torch.randn(12, 24, dtype=torch.float64).T
    bias = torch.randn(48, dtype=torch.float64)[::2]
    network = t3.TensorTrain(cores)
    torch.testing.assert_close(
        step(plan, network, x, g, weight, bias), dense_step(network, x, g, weight, bias), rtol=1e-10, atol=1e-10
    )


def layers(sizes):
    return [(*size, d, rank) for size in sizes for d in (2, 3, 4, 5) for rank in (2, 4, 8, 16)]


def largest_error(layer, mode, dtype, step, dense_step, relative_error, tokens=256):
    """The largest relative error of y and all gradients by "auto" with a frozen weight, with float32 cores."""
    columns, rows, d, rank = layer
    shape = t3.cheapest_shape(columns, rows, d, rank) if mode == "cheapest" else t3.tt_shape(columns, rows, d)
    network = t3.random_matrix(shape, rank)
    x, g = torch.randn(tokens, columns).to(dtype), torch.randn(tokens, rows).to(dtype)
    weight = (torch.randn(rows, columns) / columns**0.5).to(dtype)
    bias = torch.randn(rows).to(dtype)
    found, truth = step("auto", network, x, g, weight, bias), dense_step(network, x, g, weight, bias)
    return max(map(relative_error, found, truth))


@pytest.mark.parametrize("mode", ["cheapest", "ascending"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("layer", layers([(48, 96), (96, 48)]), ids=str)
def test_accuracy(layer, mode, dtype, tolerance, step, dense_step, relative_error):
    assert largest_error(layer, mode, dtype, step, dense_step, relative_error) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cheapest", "ascending"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(
    "layer", [(768, 3072, 2, 16), (3072, 768, 3, 8), (512, 2048, 4, 4), (1024, 4096, 5, 2)], ids=str
)
def test_accuracy_of_large_layers(layer, mode, dtype, tolerance, step, dense_step, relative_error):
    assert largest_error(layer, mode, dtype, step, dense_step, relative_error) < tolerance


@pytest.mark.parametrize("mode", ["cheapest", "ascending"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("layer", [(48, 96, 3, 4), (96, 48, 3, 8)], ids=str)
def test_accuracy_of_long_batches(layer, mode, dtype, tolerance, step, dense_step, relative_error):
    assert largest_error(layer, mode, dtype, step, dense_step, relative_error, tokens=16_384) < tolerance


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("cores_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_result_has_the_dtype_of_x_and_is_computed_in_the_wider_one(
    x_dtype, cores_dtype, plan, random_network, dense_of
):
    network = random_network(dtype=cores_dtype)
    x = torch.randn(5, 12).to(x_dtype)
    y = t3.matmul(x, network, plan)
    assert y.dtype == x_dtype
    wider = torch.promote_types(x_dtype, cores_dtype)
    rounded_once, accumulated = torch.finfo(x_dtype).eps, 32 * torch.finfo(wider).eps
    expected = x.double() @ dense_of(network.cores).T
    torch.testing.assert_close(y.double(), expected, rtol=rounded_once, atol=accumulated)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("cores_dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_with_a_weight_every_gradient_has_the_dtype_of_its_tensor(
    x_dtype, cores_dtype, plan, random_network, step, dense_step, relative_error
):
    network = random_network(dtype=cores_dtype)
    x, g, weight = (torch.randn(*shape).to(x_dtype) for shape in ((5, 12), (5, 24), (24, 12)))
    bias = torch.randn(24, dtype=torch.float32)
    found, truth = step(plan, network, x, g, weight, bias), dense_step(network, x, g, weight, bias)
    assert [t.dtype for t in found] == [x_dtype, x_dtype, *[cores_dtype] * 3, torch.float32]
    rounded = max(torch.finfo(dtype).eps for dtype in (x_dtype, cores_dtype, torch.float32))
    assert max(map(relative_error, found, truth)) < 8 * rounded


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_under_autocast_the_dtype_is_that_of_linear(x_dtype, plan, frozen, random_network, dense_of):
    network = random_network(dtype=torch.float32)
    x = torch.randn(5, 12, dtype=x_dtype)
    matrix = dense_of(network.cores)
    weight = torch.randn(24, 12, dtype=x_dtype) if frozen else None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = t3.matmul(x, network, plan, weight=weight)
        linear = F.linear(x, (matrix + (weight if frozen else 0)).to(x_dtype))
    assert y.dtype == linear.dtype
    torch.testing.assert_close(y, linear, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("backward_inside", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_gradients_under_autocast_are_close_to_float32(
    plan, backward_inside, frozen, random_network, step, dense_step, relative_error
):
    network = random_network(dtype=torch.float32)
    x, g, bias = torch.randn(64, 12), torch.randn(64, 24), torch.randn(24)
    weight = torch.randn(24, 12) if frozen else None
    leaves = [t.detach().requires_grad_() for t in (x, *network.cores, bias)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = t3.matmul(leaves[0], t3.TensorTrain(leaves[1:4]), plan, weight=weight, bias=leaves[4])
    assert y.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=backward_inside):
        gradients = torch.autograd.grad(y, leaves, g.bfloat16())
    assert [t.dtype for t in gradients] == [torch.float32] * 5
    truth = dense_step(network, x, g, weight, bias)
    assert max(map(relative_error, [y, *gradients], truth)) < 0.02


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 64, 4096])
def test_a_delta_far_smaller_than_a_16_bit_weight_is_not_lost(tokens, dtype, autocast, dense_of, relative_error):
    """The delta is visible in 16 bits only because x cancels the contribution of the weight to y."""
    network = t3.random_matrix(t3.tt_shape(24, 48, 3), 4)
    weight = torch.randn(48, 24)
    network = network * (weight.abs().mean() / network.full().abs().mean() / 1000).item()
    weight[:, 12:] = weight[:, :12]
    x = torch.randn(tokens, 12)
    x = torch.cat([x, -x], dim=1)
    if not autocast:
        x, weight = x.to(dtype), weight.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        y = t3.matmul(x, network, weight=weight)
    truth = x.to(dtype).double() @ dense_of(network.cores).T
    assert y.dtype == dtype
    assert relative_error(y, truth) < 0.02


def test_autocast_does_not_affect_the_algebra_of_networks(random_network, dense_of):
    tt = random_network(dtype=torch.float32)
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


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_a_trainable_weight_gets_its_gradient(plan, biased, random_network, dense_of):
    network = random_network()
    x, g = torch.randn(5, 12, dtype=torch.float64), torch.randn(5, 24, dtype=torch.float64)
    weight = torch.randn(24, 12, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(24, dtype=torch.float64, requires_grad=True) if biased else None
    y = t3.matmul(x, network, plan, weight=weight, bias=bias)
    expected = F.linear(x, weight.detach() + dense_of(network.cores), bias)
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)
    y.backward(g)
    torch.testing.assert_close(weight.grad, g.T @ x, rtol=1e-11, atol=1e-11)
    if biased:
        torch.testing.assert_close(bias.grad, g.sum(0), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("trained", [False, True])
def test_a_float32_bias_works_with_a_16_bit_weight(trained, random_network, dense_of, relative_error):
    network = random_network(dtype=torch.float32)
    x, bias = torch.randn(5, 12).bfloat16(), torch.randn(24)
    weight = torch.randn(24, 12).bfloat16().requires_grad_(trained)
    y = t3.matmul(x, network, weight=weight, bias=bias)
    truth = x.double() @ (weight.detach().double() + dense_of(network.cores)).T + bias
    assert y.dtype == torch.bfloat16
    assert relative_error(y.detach(), truth) < 0.01


@pytest.mark.parametrize("plan", ["auto", "timed", "sequential"])
def test_core_activation_is_applied_after_every_core_but_the_last(plan, random_network):
    tt = random_network(((2, 3), (4, 2)))
    x, bias = torch.randn(5, 8, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    first, last = tt.cores[0][0], tt.cores[1][..., 0]
    between = torch.tanh(torch.einsum("bin,mis->bmsn", x.reshape(5, 4, 2), first))
    expected = torch.einsum("bmsn,sln->bml", between, last).reshape(5, 6)
    torch.testing.assert_close(t3.matmul(x, tt, plan, torch.tanh), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(t3.matmul(x, tt, plan, torch.tanh, bias=bias), expected + bias, rtol=1e-12, atol=1e-12)


def test_core_activation_has_gradients(format, random_network):
    network = random_network(((2, 2), (2, 3)), 2, format)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    cores = [core.requires_grad_() for core in network.cores]
    assert torch.autograd.gradcheck(lambda x, *c: t3.matmul(x, type(network)(c), "auto", torch.tanh), (x, *cores))


def test_a_plan_object_is_accepted(random_network, step, dense_step):
    network = random_network()
    x, g = torch.randn(4, 12, dtype=torch.float64), torch.randn(4, 24, dtype=torch.float64)
    plan = Plan.parse("halves@1, materialised, sequential", 3)
    torch.testing.assert_close(step(plan, network, x, g), dense_step(network, x, g), rtol=1e-10, atol=1e-10)


BAD_CALLS = [
    (lambda tt: t3.matmul(torch.ones(2, 11), tt), ValueError, r"must be 12; got the shape \(2, 11\)"),
    (lambda tt: t3.matmul(torch.tensor(1.0), tt), ValueError, r"got the shape \(\)"),
    (lambda tt: t3.matmul(torch.ones(2, 12, dtype=torch.int64), tt), TypeError, "got torch.int64"),
    (lambda tt: t3.matmul([1.0] * 12, tt), TypeError, "got list"),
    (lambda tt: t3.matmul(torch.ones(2, 12, device="meta"), tt), ValueError, "got meta and cpu: move one"),
    (lambda tt: t3.matmul(torch.ones(2, 12), tt, "fast"), ValueError, "plan must be one of auto, timed, sequential, "),
    (lambda tt: t3.matmul(torch.ones(2, 12), tt, "materialised", torch.relu), ValueError, "are computed core by core"),
    (
        lambda tt: t3.matmul(torch.ones(2, 12), tt, "auto", torch.relu, weight=torch.ones(24, 12)),
        ValueError,
        "cannot be added to a weight; got both",
    ),
    (
        lambda tt: t3.matmul(torch.ones(2, 12), tt, weight=torch.ones(12, 24)),
        ValueError,
        r"The weight must have the shape \(24, 12\); got \(12, 24\)",
    ),
    (
        lambda tt: t3.matmul(torch.ones(2, 12), tt, bias=torch.ones(12)),
        ValueError,
        r"The bias must have the shape \(24,\); got \(12,\)",
    ),
    (
        lambda tt: t3.matmul(torch.ones(2, 12), tt, weight=torch.ones(24, 12, dtype=torch.bfloat16)),
        ValueError,
        "x and the weight must have one dtype; got torch.float32 and torch.bfloat16",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_invalid_input_raises(call, error, message, random_network):
    with pytest.raises(error, match=message):
        call(random_network(dtype=torch.float32))


def test_an_empty_batch_with_core_activations(format, random_network):
    network = random_network(format=format)
    y = t3.matmul(torch.empty(0, 12, dtype=torch.float64), network, core_activation=torch.relu)
    assert y.shape == (0, 24)
