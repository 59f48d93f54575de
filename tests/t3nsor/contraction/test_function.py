"""The product as one differentiable operation: saved tensors, gradients, and the compiled operator."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import t3nsor as t3
from t3nsor.contraction.chains import Sizes
from t3nsor.contraction.function import network_product
from t3nsor.contraction.plans import candidates

PLANS = ["auto", "sequential", "halves@1", "expanded@2", "fused", "fused, halves@1, sequential_reversed"]


@pytest.fixture
def inputs(random_network):
    """A function that returns x (4, 12), three cores, a weight and a bias or None; the weight requires no gradient."""

    def make(frozen=True, biased=True, dtype=torch.float64, format="tensor_train"):
        x = torch.randn(4, 12, dtype=dtype, requires_grad=True)
        cores = [core.requires_grad_() for core in random_network(rank=2, format=format, dtype=dtype).cores]
        weight = torch.randn(24, 12, dtype=dtype) if frozen else None
        bias = torch.randn(24, dtype=dtype, requires_grad=True) if biased else None
        return x, cores, weight, bias

    return make


def leaves(x, cores, weight, bias):
    return [t for t in (x, *cores, bias, weight) if t is not None and t.requires_grad]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_gradcheck(plan, frozen, format, random_network):
    network = random_network(((2, 1, 2), (1, 2, 2)), 2, format)
    x, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 4), (4,)))
    weight = torch.randn(4, 4, dtype=torch.float64) if frozen else None
    cores = [core.requires_grad_() for core in network.cores]

    def product(x, bias, *cores):
        return t3.matmul(x, type(network)(cores), plan, weight=weight, bias=bias)

    assert torch.autograd.gradcheck(product, (x, bias, *cores))


@pytest.mark.parametrize("operator", [False, True])
@pytest.mark.parametrize("wanted", [(), (0,), (1,), (2,), (0, 2)], ids=str)
@pytest.mark.parametrize("of_x", [False, True])
@pytest.mark.parametrize("of_bias", [False, True])
def test_gradients_are_computed_for_exactly_the_tensors_that_require_them(
    wanted, of_x, of_bias, operator, inputs, dense_step
):
    x, cores, weight, bias = inputs()
    g = torch.randn(4, 24, dtype=torch.float64)
    truth = dense_step(t3.TensorTrain(cores), x, g, weight, bias)[1:]
    asked = [of_x, *(k in wanted for k in range(3)), of_bias]
    for tensor, ask in zip((x, *cores, bias), asked, strict=True):
        tensor.requires_grad_(ask)
    product = torch.ops.t3nsor.network_product if operator else network_product
    y = product(x, cores, weight, bias, "auto")
    assert y.requires_grad == any(asked)
    if any(asked):
        y.backward(g)
    for tensor, ask, gradient in zip((x, *cores, bias), asked, truth, strict=True):
        assert (tensor.grad is not None) == ask
        if ask:
            torch.testing.assert_close(tensor.grad, gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("plan", PLANS)
def test_an_expanded_output_gradient(plan, inputs, dense_step):
    x, cores, weight, bias = inputs()
    truth = dense_step(t3.TensorTrain(cores), x, torch.ones(4, 24, dtype=torch.float64), weight, bias)[1:]
    t3.matmul(x, t3.TensorTrain(cores), plan, weight=weight, bias=bias).sum().backward()
    torch.testing.assert_close([t.grad for t in (x, *cores, bias)], truth, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("plan", PLANS)
def test_a_repeated_core_gets_the_sum_of_its_gradients(plan, dense_step):
    core = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    ring = t3.TensorRing([core, core, core])
    x, g = torch.randn(4, 27, dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(t3.matmul(x, ring, plan), core, g)
    torch.testing.assert_close(gradient, sum(dense_step(ring, x, g)[2:5]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("plan", ["auto", "timed", *PLANS[1:]])
def test_only_the_inputs_are_saved(plan, frozen, dtype, inputs):
    x, cores, weight, bias = inputs(frozen, dtype=torch.float32)
    weight = weight if weight is None else weight.to(dtype)
    x = x.detach().to(dtype).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        t3.matmul(x, t3.TensorTrain(cores), plan, weight=weight, bias=bias)
    given = {t.data_ptr(): t.numel() for t in (x, weight, *cores) if t is not None}
    if dtype == torch.bfloat16 and not frozen:  # computed in float32, so x is converted
        given = {t.data_ptr(): t.numel() for t in cores}
        others = [t for t in saved if t.data_ptr() not in given]
        assert [t.numel() for t in others] == [x.numel()]
        saved = [t for t in saved if t.data_ptr() in given]
    assert {t.data_ptr(): t.numel() for t in saved} == given
    assert len(saved) == len(given)


def test_nothing_is_saved_without_gradients(inputs):
    x, cores, weight, _ = inputs(biased=False)
    saved = []
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = t3.matmul(x, t3.TensorTrain(cores), weight=weight)
    assert saved == []
    assert not y.requires_grad


@pytest.mark.parametrize("plan", PLANS)
def test_inputs_are_not_modified(plan, inputs):
    x, cores, weight, bias = inputs()
    g = torch.randn(4, 24, dtype=torch.float64)
    given = [x, *cores, weight, bias, g]
    before = [t.detach().clone() for t in given]
    t3.matmul(x, t3.TensorTrain(cores), plan, weight=weight, bias=bias).backward(g)
    assert all(torch.equal(t, b) for t, b in zip(given, before, strict=True))


def test_a_second_backward_pass_gives_the_same_gradients(inputs):
    x, cores, weight, bias = inputs()
    y = t3.matmul(x, t3.TensorTrain(cores), weight=weight, bias=bias).square().sum()
    first, second = (torch.autograd.grad(y, leaves(x, cores, weight, bias), retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_an_input_modified_in_place_raises_in_the_backward_pass(inputs):
    x, cores, weight, bias = inputs()
    y = t3.matmul(x, t3.TensorTrain(cores), weight=weight, bias=bias)
    with torch.no_grad():
        cores[1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_a_second_derivative_is_not_silently_zero(plan, frozen, inputs):
    x, cores, weight, bias = inputs(frozen)
    network = t3.TensorTrain(core.detach() for core in cores)
    hessian = torch.autograd.functional.hessian(
        lambda row: t3.matmul(row, network, plan, weight=weight, bias=bias.detach()).square().sum(), x[0].detach()
    )
    matrix = network.full() + (weight if frozen else 0)
    torch.testing.assert_close(hessian, 2 * matrix.T @ matrix, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_the_functional_gradient_matches_autograd(plan, frozen, inputs):
    x, cores, weight, bias = inputs(frozen)

    def loss(x, cores, bias):
        return t3.matmul(x, t3.TensorTrain(cores), plan, weight=weight, bias=bias).sin().sum()

    found = torch.func.grad(loss, argnums=(0, 1, 2))(x, tuple(cores), bias)
    expected = torch.autograd.grad(loss(x, cores, bias), [x, *cores, bias])
    torch.testing.assert_close([found[0], *found[1], found[2]], list(expected))


def test_the_operator_raises_for_a_second_derivative(inputs):
    x, cores, weight, bias = inputs()
    y = torch.ops.t3nsor.network_product(x, cores, weight, bias, "auto")
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("plan", PLANS)
def test_checkpointing_gives_the_same_values_and_gradients(plan, inputs):
    x, cores, weight, bias = inputs()

    def layer(x, bias, *cores):
        return F.gelu(t3.matmul(F.gelu(x), t3.TensorTrain(cores), plan, weight=weight, bias=bias))

    found = []
    for run in (layer, lambda *tensors: checkpoint(layer, *tensors, use_reentrant=False)):
        y = run(x, bias, *cores)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, bias, *cores])])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def compiled_and_eager(plan, network_type, x, cores, weight, bias, autocast=False):
    """Return [y, its gradients] compiled in one graph, and the same in eager mode."""

    def run(x, cores, weight, bias):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return t3.matmul(x, network_type(cores), plan, weight=weight, bias=bias)

    torch._dynamo.reset()
    found = []
    for product in (torch.compile(run, backend="aot_eager", fullgraph=True), run):
        y = product(x, cores, weight, bias)
        g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        found.append([y, *torch.autograd.grad(y, leaves(x, cores, weight, bias), g)])
    return found


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_compiled_forward_and_backward_match_eager(biased, frozen, inputs):
    torch.testing.assert_close(*compiled_and_eager("auto", t3.TensorTrain, *inputs(frozen, biased)), rtol=0, atol=0)


@pytest.mark.parametrize("plan", ["timed", *PLANS[1:]])
def test_every_plan_compiles(plan, inputs):
    found = compiled_and_eager(plan, t3.TensorRing, *inputs(format="tensor_ring"))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_it_compiles_with_a_trainable_weight(inputs):
    x, cores, weight, bias = inputs()
    found = compiled_and_eager("auto", t3.TensorTrain, x, cores, weight.requires_grad_(), bias)
    assert len(found[0]) == 7
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_it_compiles_under_autocast(inputs):
    found = compiled_and_eager("auto", t3.TensorTrain, *inputs(dtype=torch.float32), autocast=True)
    assert found[0][0].dtype == torch.bfloat16
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_it_compiles_with_frozen_cores_and_input(inputs):
    x, cores, weight, bias = inputs()
    found = compiled_and_eager(
        "auto",
        t3.TensorTrain,
        x.requires_grad_(False),
        [cores[0], cores[1].requires_grad_(False), cores[2]],
        weight,
        bias,
    )
    assert len(found[0]) == 4
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_compiled_it_supports_batches_of_any_length(inputs):
    _, cores, weight, bias = inputs()
    product = torch.compile(
        lambda x: t3.matmul(x, t3.TensorTrain(cores), weight=weight, bias=bias), backend="aot_eager", fullgraph=True
    )
    torch._dynamo.reset()
    for batch in ((2,), (5,), (3, 7), (1,)):
        x = torch.randn(*batch, 12, dtype=torch.float64, requires_grad=True)
        found, expected = product(x), t3.matmul(x, t3.TensorTrain(cores), weight=weight, bias=bias)
        torch.testing.assert_close(found, expected)
        g = torch.randn_like(found)
        gradients = [torch.autograd.grad(y, [x, *cores, bias], g) for y in (found, expected)]
        torch.testing.assert_close(*gradients)


def test_compiled_an_activation_raises_with_plans_that_cannot_apply_it(random_network):
    torch._dynamo.reset()
    network, x = random_network(), torch.randn(3, 12, dtype=torch.float64)
    product = torch.compile(lambda x, plan: t3.matmul(x, network, plan, torch.relu), backend="eager")
    torch.testing.assert_close(product(x, "auto"), t3.matmul(x, network, "auto", torch.relu))
    with pytest.raises(ValueError, match="are computed core by core; got plan='materialised'"):
        product(x, "materialised")


@pytest.mark.parametrize(("plan", "frozen"), [*((plan, True) for plan in PLANS), ("auto", False)])
def test_the_operator_of_the_product_is_well_formed(plan, frozen, inputs):
    x, cores, weight, bias = inputs(frozen, frozen, format="tensor_ring")
    torch.library.opcheck(torch.ops.t3nsor.network_product, (x, cores, weight, bias, plan))


@pytest.mark.parametrize(
    ("plan", "for_x", "for_cores"),
    [*((plan, True, True) for plan in PLANS), ("auto", True, False), ("auto", False, True)],
)
def test_the_operator_of_the_gradients_is_well_formed(plan, for_x, for_cores, inputs):
    x, cores, weight, _ = inputs()
    x, *cores = (t.detach() for t in (x, *cores))
    g = torch.randn(4, 24, dtype=torch.float64)
    torch.library.opcheck(torch.ops.t3nsor.network_product_gradients, (g, x, cores, weight, plan, for_x, for_cores))


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("plan", PLANS)
def test_the_operators_return_the_strides_of_their_fakes(
    plan, tokens, raw_shape, format, random_network, strategies_of
):
    network = random_network(raw_shape, 2, format)
    cores = list(network.cores)
    known = strategies_of(len(cores))
    if any(name.strip() not in (*known, "auto") for name in plan.split(",")):
        plan = "sequential_reversed"
    x = torch.randn(tokens, network.shape[1], dtype=torch.float64)
    y = torch.ops.t3nsor.network_product(x, cores, None, None, plan)
    made = torch.ops.t3nsor.network_product_gradients(y, x, cores, None, plan, True, True)
    assert all(t.is_contiguous() for t in (y, *made))
    assert [t.shape for t in made] == [t.shape for t in (x, *cores)]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("raw_shape", [((2, 4), (3, 4)), ((1, 8), (3, 4)), ((8, 1), (1, 12)), ((8,), (12,))], ids=str)
def test_the_result_can_be_modified_in_place_like_that_of_a_linear(raw_shape, frozen):
    network = t3.random_matrix(raw_shape, 2)
    weight = torch.randn(8, 12) if frozen else None
    x = torch.randn(5, 12)
    for strategy in [*candidates(Sizes.of(network.cores), frozen), "auto"]:
        cores = [core.clone().requires_grad_() for core in network.cores]
        y = t3.matmul(x, t3.TensorTrain(cores), str(strategy), weight=weight)
        y.add_(1).sum().backward()
        assert all(core.grad is not None for core in cores)
