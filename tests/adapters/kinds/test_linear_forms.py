"""Linear forms against their definitions in float64: torch.kron, products of thin matrices, and tensor-train layers."""

import copy
import pickle

import pytest
import torch
from torch import nn

import t3nsor as t3
from adapters import DenseLinear, HypercomplexLinear
from adapters.kinds.linear_forms import low_rank_linear

IN, OUT = 24, 12
FACTORED = [
    pytest.param({}, id="whole"),
    pytest.param({"rank": 1}, id="rank 1"),
    pytest.param({"rank": 2, "rule_rank": 1}, id="both"),
    pytest.param({"rule_rank": 3}, id="rules"),
]


def filled(module):
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.5)
    return module


def by_definition(module):
    """sum_i kron(A_i, B_i) from the parameters by name, (out, in)."""

    def matrices(name):
        if hasattr(module, name):
            return list(getattr(module, name))
        factors = zip(getattr(module, f"{name}_left"), getattr(module, f"{name}_right"), strict=True)
        return [left @ right for left, right in factors]

    return sum(torch.kron(a, b) for a, b in zip(matrices("rules"), matrices("blocks"), strict=True))


@pytest.mark.parametrize("fields", FACTORED)
@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_a_hypercomplex_layer_is_a_sum_of_kronecker_products(n, fields):
    module = filled(HypercomplexLinear(IN, OUT, n, **fields))
    x = torch.randn(2, 5, IN, dtype=torch.float64)
    weight = by_definition(module)
    assert weight.shape == (OUT, IN)
    torch.testing.assert_close(module.full(), weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module(x), x @ weight.T + module.bias, rtol=1e-12, atol=1e-12)


def test_an_unfactorised_hypercomplex_layer_is_a_two_core_train_of_rank_n():
    n = 3
    module = filled(HypercomplexLinear(IN, OUT, n))
    train = t3.TTLinear(IN, OUT, raw_shape=((n, OUT // n), (n, IN // n)), tt_rank=[n], dtype=torch.float64)
    with torch.no_grad():
        for a in range(n):
            for b in range(n):
                for i in range(n):
                    train.cores[0][0, a, b, i] = module.rules[i, a, b]
        train.cores[1].copy_(module.blocks.reshape(train.cores[1].shape))
        train.bias.copy_(module.bias)
    x = torch.randn(7, IN, dtype=torch.float64)
    torch.testing.assert_close(module(x), train(x), rtol=1e-12, atol=1e-12)
    module(x).square().sum().backward()
    train(x).square().sum().backward()
    torch.testing.assert_close(module.rules.grad, train.cores[0].grad[0].permute(2, 0, 1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(module.blocks.grad, train.cores[1].grad[..., 0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 2, 5, 12])
@pytest.mark.parametrize(("in_features", "out_features"), [(IN, OUT), (OUT, IN)])
def test_a_low_rank_layer_is_a_product_of_two_thin_matrices(rank, in_features, out_features):
    module = filled(low_rank_linear(in_features, out_features, rank))
    v, u = module.cores[0].reshape(in_features, rank), module.cores[1].reshape(rank, out_features)
    x = torch.randn(2, 5, in_features, dtype=torch.float64)
    torch.testing.assert_close(module(x), (x @ v) @ u + module.bias, rtol=1e-12, atol=1e-12)
    assert torch.linalg.matrix_rank(module.full()) == rank
    assert sum(p.numel() for p in module.parameters()) == rank * (IN + OUT) + out_features


def test_a_low_rank_layer_multiplies_by_its_thin_matrices():
    module = low_rank_linear(768, 24, 2)
    explained = t3.explain((1024, 768), module.network())
    fewest = min(explained.product, key=lambda cost: cost.flops)
    assert fewest.flops == 2 * 1024 * 2 * (768 + 24)
    assert explained.product[0].seconds <= fewest.seconds


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (low_rank_linear(IN, OUT, 1000), {"cores.0": (1, 1, IN, OUT), "cores.1": (OUT, OUT, 1, 1)}),
        (
            HypercomplexLinear(IN, OUT, 3, rank=9, rule_rank=9),
            {
                "rules_left": (3, 3, 3),
                "rules_right": (3, 3, 3),
                "blocks_left": (3, 4, 4),
                "blocks_right": (3, 4, 8),
            },
        ),
    ],
    ids=["low_rank", "hypercomplex"],
)
def test_a_rank_is_clipped_to_the_largest_useful_one(module, shapes):
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == shapes | {"bias": (OUT,)}


@pytest.mark.parametrize("fields", FACTORED)
def test_a_hypercomplex_layer_uses_all_of_its_parameters(fields):
    module = HypercomplexLinear(IN, OUT, 3, **fields)
    module(torch.randn(4, IN)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())
    assert set(dict(module.named_parameters())) == {*module.shareable(), "bias"}


FORMS = [
    pytest.param(lambda **zero: DenseLinear(384, 96, **zero), id="dense"),
    pytest.param(lambda **zero: low_rank_linear(384, 96, 8, **zero), id="low_rank"),
    pytest.param(lambda **zero: HypercomplexLinear(384, 96, 8, **zero), id="hypercomplex"),
    pytest.param(lambda **zero: HypercomplexLinear(384, 96, 12, rank=2, rule_rank=3, **zero), id="factorised"),
]


def dense_weight(module):
    return module.weight if isinstance(module, DenseLinear) else module.full()


@pytest.mark.parametrize("form", FORMS)
def test_a_form_starts_with_glorot_s_variance_and_a_zero_bias(form):
    draws = torch.stack([dense_weight(form()).detach() for _ in range(24)])
    assert draws.var().item() == pytest.approx(2 / (384 + 96), rel=0.15)
    assert abs(draws.mean().item()) < 0.003
    assert not form().bias.any()


@pytest.mark.parametrize(("sizes", "rule_rank"), [((48, 24), None), ((48, 24), 4), ((768, 384), None), ((768, 384), 1)])
def test_the_initial_variance_of_rules_is_independent_of_the_layer_size(sizes, rule_rank):
    draws = [HypercomplexLinear(*sizes, 8, rule_rank=rule_rank) for _ in range(40)]
    rules = torch.stack([m.rules if rule_rank is None else m.rules_left @ m.rules_right for m in draws])
    assert rules.var().item() == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_starts_at_zero_can_learn_a_map_of_its_form(form):
    target = form().requires_grad_(False).double()
    module = form(zero=True).double()
    assert not dense_weight(module).any()
    x = torch.randn(256, 384, dtype=torch.float64)
    assert not module(x).any()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(80):
        loss = (module(x) - target(x)).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert torch.linalg.matrix_rank(dense_weight(module)) == torch.linalg.matrix_rank(dense_weight(target))


@pytest.mark.parametrize("form", FORMS)
def test_reset_parameters_initializes_a_form_created_on_the_meta_device(form):
    with torch.device("meta"):
        module = form()
    assert all(p.is_meta for p in module.parameters())
    module.to_empty(device="cpu")
    torch.manual_seed(5)
    module.reset_parameters()
    values = dense_weight(module).detach().clone()
    torch.manual_seed(5)
    assert torch.equal(dense_weight(form()), values)
    before = dict(module.named_parameters())
    module.reset_parameters()
    assert all(before[name] is parameter for name, parameter in module.named_parameters())


@pytest.mark.parametrize("form", FORMS)
def test_outputs_have_the_dtype_of_the_input_or_of_autocast(form):
    module = form()
    nn.init.normal_(module.bias)
    x = torch.randn(3, 384)
    exact = module(x)
    for dtype in (torch.float64, torch.bfloat16):
        y = module(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert {p.grad.dtype for p in module.parameters()} == {torch.float32}


def test_factors_are_multiplied_in_float32_under_autocast():
    module, whole = HypercomplexLinear(384, 96, 8, rank=2), HypercomplexLinear(384, 96, 8)
    with torch.no_grad():
        whole.rules.copy_(module.rules)
        whole.blocks.copy_(torch.einsum("ipr,irq->ipq", module.blocks_left, module.blocks_right))
    x = torch.randn(64, 384)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x), whole(x))


@pytest.mark.parametrize("form", FORMS[1:])
def test_only_the_last_factor_starts_at_zero(form):
    module = form(zero=True)
    zero = {name for name, parameter in module.named_parameters() if not parameter.any()}
    assert zero - {"bias"} in ({"cores.1"}, {"blocks"}, {"blocks_left"})


def a_pair():
    """Two hypercomplex layers whose rules have one owner."""
    pair = nn.Module()
    pair.owner = nn.ParameterDict()
    pair.layers = nn.ModuleList([HypercomplexLinear(IN, OUT, 3, rank=1), HypercomplexLinear(OUT, IN, 3, rank=1)])
    pair.owner["all"] = pair.layers[0].shareable()["rules"]
    for layer in pair.layers:
        layer.share("rules", pair.owner, "all")
    return pair


def outputs(pair):
    return pair.layers[1](pair.layers[0](torch.ones(2, IN)))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_shares_parameters_within_itself_only(clone):
    pair = a_pair()
    twin = clone(pair)
    before = outputs(pair)
    assert torch.equal(outputs(twin), before)
    with torch.no_grad():
        twin.owner["all"].mul_(2)
    assert torch.equal(outputs(pair), before)
    assert all(layer.live("rules") is twin.owner["all"] for layer in twin.layers)


def test_a_shared_tensor_is_once_in_the_state_dict_and_read_from_its_owner():
    pair, other = a_pair(), a_pair()
    state = pair.state_dict()
    assert [name for name in state if "rules" in name or "owner" in name] == ["owner.all"]
    other.load_state_dict(state, assign=True)
    assert torch.equal(outputs(other), outputs(pair))
    assert [layer.live("rules") is other.owner["all"] for layer in other.layers] == [True, True]


def test_reset_parameters_redraws_shared_tensors():
    pair = a_pair()
    with torch.no_grad():
        pair.owner["all"].fill_(torch.nan)
    pair.layers[1].reset_parameters()
    assert pair.owner["all"].isfinite().all()


def test_fixed_rules_do_not_train_and_are_reported():
    module = HypercomplexLinear(IN, OUT, 3, rule_rank=1, learnable_rules=False)
    assert module.frozen_parameters() == dict.fromkeys(
        [module.rules_left, module.rules_right], "fixed rule of an adapter"
    )
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == ["rules_left", "rules_right"]
    assert {"rules_left", "rules_right"} <= module.state_dict().keys()
    assert HypercomplexLinear(IN, OUT, 3, rule_rank=1).frozen_parameters() == {}
