"""A linear with adapters beside and after it: the forward and the merged weight, both from dense algebra in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

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
            config = AdapterConfig.from_dict({"kind": kind, "rank": 2, "bias": "dense", "scaling": 0.5})
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
def test_forward_and_merged_weights_are_those_of_dense_algebra(adapted, bias, kinds):
    module, W, b = adapted(bias, kinds)
    x = torch.randn(2, 3, IN, dtype=torch.float64)
    expected = F.linear(x, W, b)
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)
    weights = module.merged_weights()
    torch.testing.assert_close(weights.get("weight", module.weight), W, rtol=1e-11, atol=1e-11)
    assert set(weights) == ({"weight", "bias"} if kinds else set())
    module.set_merged(weights)
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_merge_casts_the_sum_once(adapted, dtype):
    module, W, b = adapted(True, ["tt_lora", "tt_single"], dtype)
    weights = module.merged_weights()
    assert weights["weight"].dtype == weights["bias"].dtype == dtype
    half_a_step = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(weights["weight"].double(), W, rtol=1.01 * half_a_step, atol=1e-6)
    torch.testing.assert_close(weights["bias"].double(), b, rtol=1.01 * half_a_step, atol=1e-6)


def test_a_merge_is_the_same_under_autocast(adapted):
    module, W, _ = adapted(True, ["tt_lora", "tt_single"], torch.float32)
    outside = module.merged_weights()["weight"]
    with torch.autocast("cpu", torch.bfloat16):
        inside = module.merged_weights()["weight"]
    torch.testing.assert_close(outside.double(), W, rtol=1e-5, atol=1e-5)
    assert torch.equal(inside, outside)


def test_it_takes_over_the_parameters_of_the_linear():
    linear = nn.Linear(IN, OUT).eval()
    module = AdaptedLinear(linear)
    assert isinstance(module, nn.Linear)
    assert module.weight is linear.weight
    assert module.bias is linear.bias
    assert not module.training
    assert list(module.state_dict()) == ["weight", "bias"]
