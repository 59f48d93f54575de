"""A linear with adapters beside and after it: the forward and the merged weight, both from dense algebra in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adapters
import t3nsor as t3
from adapters import AdaptedLinear, AdapterConfig, AdapterController

IN, OUT = 24, 48


@pytest.fixture
def adapted(dense_of):
    """A function (bias, kinds, dtype) -> an AdaptedLinear, and W, b of the whole map from numpy and dense algebra."""

    def make(bias, kinds, dtype=torch.float64):
        linear = nn.Linear(IN, OUT, bias=bias, dtype=dtype)
        module = AdaptedLinear(linear)
        W = linear.weight.detach().double()
        b = linear.bias.detach().double() if bias else torch.zeros(OUT, dtype=torch.float64)
        for number, kind in enumerate(kinds):
            config = AdapterConfig.from_dict({"kind": kind, "rank": 2, "delta_bias": "dense", "scaling": 0.5})
            adapter = config.build(IN if kind == "tt_lora" else OUT, OUT).to(torch.promote_types(dtype, torch.float32))
            with torch.no_grad():
                for parameter in adapter.parameters():
                    parameter.normal_(0.0, 0.3)
            place = module.beside if kind == "tt_lora" else module.after
            place[f"{kind}_{number}"] = AdapterController()
            place[f"{kind}_{number}"].add(None, adapter)
            T, c = 0.5 * dense_of(adapter.linear.cores), 0.5 * adapter.linear.bias.detach().double()
            if kind == "tt_lora":
                W, b = W + T, b + c
            else:
                W, b = W + T @ W, b + T @ b + c
        return module, W, b

    return make


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "kinds", [[], ["tt_lora"], ["tt_single"], ["tt_lora", "tt_lora", "tt_single"], ["tt_single", "tt_single"]]
)
def test_forward_and_merged_weights_match_dense_algebra(adapted, bias, kinds):
    module, W, b = adapted(bias, kinds)
    x = torch.randn(2, 3, IN, dtype=torch.float64)
    expected = F.linear(x, W, b)
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)
    weights = module.merged_weights()
    torch.testing.assert_close(weights.get("weight", module.weight), W, rtol=1e-11, atol=1e-11)
    assert set(weights) == ({"weight", "bias"} if kinds else set())
    module.replace_base(weights)
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merge_casts_the_sum_once(adapted, dtype):
    module, W, b = adapted(True, ["tt_lora", "tt_single"], dtype)
    weights = module.merged_weights()
    assert weights["weight"].dtype == weights["bias"].dtype == dtype
    half_a_step = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(weights["weight"].double(), W, rtol=1.01 * half_a_step, atol=1e-6)
    torch.testing.assert_close(weights["bias"].double(), b, rtol=1.01 * half_a_step, atol=1e-6)


def test_merge_is_the_same_under_autocast(adapted):
    module, W, _ = adapted(True, ["tt_lora", "tt_single"], torch.float32)
    outside = module.merged_weights()["weight"]
    with torch.autocast("cpu", torch.bfloat16):
        inside = module.merged_weights()["weight"]
    torch.testing.assert_close(outside.double(), W, rtol=1e-5, atol=1e-5)
    assert torch.equal(inside, outside)


def test_host_takes_over_the_parameters_of_the_linear():
    linear = nn.Linear(IN, OUT).eval()
    module = AdaptedLinear(linear)
    assert isinstance(module, nn.Linear)
    assert module.weight is linear.weight
    assert module.bias is linear.bias
    assert not module.training
    assert list(module.state_dict()) == ["weight", "bias"]


def beside(linear, *adapters_beside):
    """An AdaptedLinear with these adapters beside a linear, in evaluation mode."""
    module = AdaptedLinear(linear.requires_grad_(False))
    for number, adapter in enumerate(adapters_beside):
        module.beside[str(number)] = AdapterController()
        module.beside[str(number)].add(None, adapter)
    return module.eval()


def tensor_train(dtype=torch.float64, **fields):
    """A tt_lora for IN -> OUT with random numbers in every parameter."""
    adapter = AdapterConfig.from_dict({"kind": "tt_lora", "rank": 3, **fields}).build(IN, OUT).to(dtype)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(0.0, 0.3)
    return adapter


def step(run, x, module):
    """run(x), the gradient of x, and those of the parameters of the module that are trained."""
    x = x.detach().requires_grad_()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    y = run(x)
    g = (torch.arange(y.numel()) % 7 - 2).to(y.dtype).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [x, *trained], g)]


@pytest.fixture
def weights_given(monkeypatch):
    """The weights that the products of networks are given, as they come; None for a product of its own."""
    given, product = [], t3.matmul

    def recorded(*arguments, weight=None, **keywords):
        given.append(weight)
        return product(*arguments, weight=weight, **keywords)

    monkeypatch.setattr(t3, "matmul", recorded)
    monkeypatch.setattr(t3.linear, "matmul", recorded)
    return given


@pytest.mark.parametrize("format", t3.FORMATS)
@pytest.mark.parametrize("scaling", [1.0, 0.5])
@pytest.mark.parametrize("adapter_bias", ["dense", "tt", "none"])
@pytest.mark.parametrize("bias", [True, False])
def test_fused_product_equals_base_plus_delta_with_all_gradients(bias, adapter_bias, scaling, format, weights_given):
    adapter = tensor_train(delta_bias=adapter_bias, scaling=scaling, format=format)
    linear = nn.Linear(IN, OUT, bias=bias, dtype=torch.float64)
    module = beside(linear, adapter)
    x = torch.randn(2, 5, IN, dtype=torch.float64)

    def apart(x):
        c = adapter.linear.full_bias()
        change = F.linear(x, adapter.linear.full()) + (0 if c is None else c)
        return F.linear(x, linear.weight, linear.bias) + scaling * change

    expected = step(apart, x, module)
    assert weights_given == []
    torch.testing.assert_close(step(module, x, module), expected, rtol=1e-10, atol=1e-10)
    assert len(weights_given) == 1
    assert weights_given[0] is linear.weight


@pytest.mark.parametrize("plan", ["sequential", "halves@1", "fused", "fused, halves@2, materialised", "timed"])
def test_fused_product_follows_the_plan_of_the_layer(plan):
    adapter = tensor_train(delta_bias="dense", scaling=0.5)
    module = beside(nn.Linear(IN, OUT, dtype=torch.float64), adapter)
    x = torch.randn(7, IN, dtype=torch.float64)
    expected = step(module, x, module)
    adapter.linear.plan = plan
    torch.testing.assert_close(step(module, x, module), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("plan", ["auto", "sequential", "halves@1", "fused"])
def test_step_zero_equals_the_base_bit_for_bit(plan, dtype):
    adapter = AdapterConfig.from_dict({"kind": "tt_lora", "rank": 3, "delta_bias": "tt", "scaling": 0.5}).build(IN, OUT)
    adapter.linear.plan = plan
    linear = nn.Linear(IN, OUT, dtype=dtype)
    x = torch.randn(64, IN).to(dtype)
    assert torch.equal(beside(linear, adapter)(x), linear(x))


def test_one_of_two_deltas_is_fused_with_the_weight(weights_given):
    pair = tensor_train(delta_bias="dense"), tensor_train(scaling=0.5, delta_bias="tt")
    linear = nn.Linear(IN, OUT, dtype=torch.float64)
    module = beside(linear, *pair)
    x = torch.randn(5, IN, dtype=torch.float64)
    expected = step(lambda x: F.linear(x, linear.weight, linear.bias) + pair[0](x) + pair[1](x), x, module)
    weights_given.clear()
    torch.testing.assert_close(step(module, x, module), expected, rtol=1e-10, atol=1e-10)
    assert [weight is None for weight in weights_given] == [False, True]


def test_active_dropout_prevents_fusing(weights_given):
    adapter = tensor_train(dropout=0.5, delta_bias="dense", scaling=0.5)
    linear = nn.Linear(IN, OUT, dtype=torch.float64)
    module = beside(linear, adapter).train()
    assert not adapter.fuses
    x = torch.randn(5, IN, dtype=torch.float64)
    torch.manual_seed(5)
    y = module(x)
    torch.manual_seed(5)
    dropped = F.dropout(x, 0.5)
    change = F.linear(dropped, 0.5 * adapter.linear.full(), 0.5 * adapter.linear.bias)
    torch.testing.assert_close(y, F.linear(x, linear.weight, linear.bias) + change, rtol=1e-11, atol=1e-11)
    assert weights_given == [None]
    module.eval()
    assert adapter.fuses
    expected = F.linear(x, linear.weight + adapter.delta_weight(), linear.bias + adapter.delta_bias())
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)
    assert weights_given[1] is linear.weight


@pytest.mark.parametrize(("dropout", "training", "fuses"), [(0.0, True, True), (0.0, False, True), (0.1, True, False)])
def test_inactive_dropout_does_not_prevent_fusing(dropout, training, fuses):
    assert tensor_train(dropout=dropout).train(training).fuses == fuses


@pytest.mark.parametrize("training", [False, True])
def test_nonlinear_delta_is_added(training, weights_given):
    adapter = tensor_train(core_activation="gelu", delta_bias="dense", scaling=0.5)
    linear = nn.Linear(IN, OUT, dtype=torch.float64)
    module = beside(linear, adapter).train(training)
    x = torch.randn(5, IN, dtype=torch.float64)
    expected = step(lambda x: F.linear(x, linear.weight, linear.bias) + adapter(x), x, module)
    weights_given.clear()
    torch.testing.assert_close(step(module, x, module), expected, rtol=1e-12, atol=1e-12)
    assert not adapter.fuses
    assert weights_given == [None]


def test_linear_delta_is_fused_beside_a_nonlinear_one(weights_given):
    bent, straight = tensor_train(core_activation="tanh"), tensor_train(delta_bias="dense")
    linear = nn.Linear(IN, OUT, dtype=torch.float64)
    module = beside(linear, bent, straight)
    x = torch.randn(5, IN, dtype=torch.float64)
    expected = F.linear(x, linear.weight + straight.delta_weight(), linear.bias + straight.delta_bias()) + bent(x)
    weights_given.clear()
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)
    assert [weight is None for weight in weights_given] == [False, True]


@pytest.mark.parametrize("plan", ["auto", "sequential", "halves@2"])
@pytest.mark.parametrize("bias", [True, False])
def test_merged_output_equals_unmerged_output(bias, plan, weights_given):
    adapter = tensor_train(delta_bias="tt", scaling=0.5)
    adapter.linear.plan = plan
    module = beside(nn.Linear(IN, OUT, bias=bias, dtype=torch.float64), adapter)
    x = torch.randn(5, IN, dtype=torch.float64)
    unmerged = module(x)
    module.replace_base(module.merged_weights())
    weights_given.clear()
    torch.testing.assert_close(module(x), unmerged, rtol=1e-11, atol=1e-11)
    assert weights_given == []


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("adapter_bias", ["dense", "tt", "none"])
@pytest.mark.parametrize("bias", [True, False])
def test_float32_adapters_on_a_16_bit_base(bias, adapter_bias, trained):
    adapter = tensor_train(torch.float32, delta_bias=adapter_bias, scaling=0.5)
    linear = nn.Linear(IN, OUT, bias=bias, dtype=torch.bfloat16)
    module = beside(linear, adapter)
    linear.requires_grad_(trained)
    x = torch.randn(64, IN).bfloat16()
    y, *gradients = step(module, x, adapter)
    assert y.dtype == gradients[0].dtype == torch.bfloat16
    assert {gradient.dtype for gradient in gradients[1:]} == {torch.float32}
    matrix = linear.weight.double() + adapter.delta_weight().double()
    shift = sum(b.double() for b in (linear.bias, adapter.delta_bias()) if b is not None)
    expected = (x.double() @ matrix.T + shift).detach()
    assert ((y.double() - expected).norm() / expected.norm()).item() < 0.01


def test_trainable_base_weight_has_its_gradient():
    adapter = tensor_train(delta_bias="dense")
    linear = nn.Linear(IN, OUT, dtype=torch.float64)
    module = beside(linear, adapter)
    linear.requires_grad_(True)
    x = torch.randn(5, IN, dtype=torch.float64)
    expected = step(lambda x: F.linear(x, linear.weight, linear.bias) + adapter(x), x, module)
    assert len(expected) == 2 + 2 + 3 + 1
    torch.testing.assert_close(step(module, x, module), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backward_inside", [False, True])
def test_autocast_gives_the_base_dtype_and_float32_gradients(backward_inside):
    adapter = tensor_train(torch.float32, delta_bias="dense")
    module = beside(nn.Linear(IN, OUT), adapter)
    x = torch.randn(64, IN)
    exact = step(module, x, module)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.bfloat16
    g = (torch.arange(y.numel()) % 7 - 2).to(y.dtype).reshape(y.shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=backward_inside):
        gradients = torch.autograd.grad(y, [x, *adapter.parameters()], g)
    for found, truth in zip([y, *gradients], exact, strict=True):
        assert ((found.float() - truth).norm() / truth.norm()).item() < 0.02
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


@pytest.mark.parametrize(
    ("fields", "noted"),
    [
        ({"kind": "tt_lora", "dropout": 0.1}, True),
        ({"kind": "tt_lora"}, False),
        ({"kind": "tt_single", "dropout": 0.1}, False),
    ],
    ids=str,
)
def test_dropout_that_prevents_fusing_is_logged(fields, noted, tiny_t5, caplog):
    caplog.set_level("INFO", logger="adapters")
    adapters.attach(tiny_t5(), {"rank": 2, **fields})
    notes = [record.getMessage() for record in caplog.records]
    assert [note.startswith("Adapter kind 'tt_lora' with dropout=0.1: in training") for note in notes] == [True] * noted
