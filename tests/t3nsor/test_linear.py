import copy
import functools
import io
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import t3nsor as t3

every_format = pytest.mark.parametrize("format", t3.FORMATS)
every_format_with_disabled_cores = pytest.mark.parametrize("format", [name for name in t3.FORMATS if name != "tucker"])


@every_format
@pytest.mark.parametrize("plan", ["auto", "sequential", "materialised"])
@pytest.mark.parametrize("bias", [False, "dense", "tt"])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_forward_is_linear_with_the_full_weight(d, bias, plan, format, dense_of):
    layer = t3.TTLinear(24, 36, bias=bias, d=d, tt_rank=3, plan=plan, format=format, dtype=torch.float64)
    if layer.bias is not None:
        for parameter in layer.bias.parameters() if bias == "tt" else [layer.bias]:
            nn.init.normal_(parameter)
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    offset = 0 if layer.bias is None else layer.bias.full() if bias == "tt" else layer.bias
    matrix = dense_of(layer.live_cores())
    torch.testing.assert_close(layer(x), x @ matrix.T + offset, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(layer.full(), matrix, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("bias", "other"), [(True, "dense"), (False, "none")])
def test_the_two_names_of_a_bias(bias, other):
    names = [[name for name, _ in t3.TTLinear(24, 36, bias=b).named_parameters()] for b in (bias, other)]
    assert names[0] == names[1]
    assert ("bias" in names[0]) == bias


@pytest.mark.parametrize(("rank", "count"), [(2, 224), (4, 640), (8, 2048)])
def test_published_parameter_counts(rank, count):
    layer = t3.TTLinear(768, 24, bias=False, d=3, tt_rank=rank, device="meta")
    assert sum(parameter.numel() for parameter in layer.parameters()) == count


@pytest.mark.parametrize("mode", ["ascending", "descending", "mixed", "reversed_out", "in_only", "out_only"])
def test_shape_mode_chooses_the_raw_shape(mode):
    layer = t3.TTLinear(768, 24, d=3, shape_mode=mode, device="meta")
    assert layer.raw_shape == t3.tt_shape(768, 24, 3, mode)


def test_an_explicit_raw_shape_sets_the_number_of_cores():
    layer = t3.TTLinear(12, 8, raw_shape=[[4, 2], [3, 4]], tt_rank=[5])
    assert layer.raw_shape == ((4, 2), (3, 4))
    assert layer.ranks == (1, 5, 1)
    assert [tuple(core.shape) for core in layer.cores] == [(1, 4, 3, 5), (5, 2, 4, 1)]


def test_prime_feature_dimensions_are_supported():
    layer = t3.TTLinear(13, 17, d=3, tt_rank=4)
    assert layer(torch.randn(2, 13)).shape == (2, 17)


@every_format
@pytest.mark.parametrize("init", ["glorot", "he", "lecun", 0.5])
@pytest.mark.parametrize("zero_core", [0, 1, 2, -1])
@pytest.mark.parametrize("bias", ["tt", "none"])
def test_a_zero_core_makes_the_initial_weight_exactly_zero_and_has_a_gradient(zero_core, init, bias, format):
    layer = t3.TTLinear(24, 36, bias=bias, tt_rank=3, zero_core=zero_core, init=init, format=format)
    x = torch.randn(5, 24)
    assert torch.count_nonzero(layer.full()) == 0
    assert torch.count_nonzero(layer(x)) == 0
    layer(x).sum().backward()
    for k in range(3):
        assert any(parameter.grad.any() for parameter in layer.cores.parameters_of(k)) == (k == zero_core % 3)


@pytest.mark.parametrize(
    "frozen", list(itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(4)))
)
@every_format
def test_frozen_cores_do_not_train(frozen, format):
    layer = t3.TTLinear(24, 36, tt_rank=3, frozen_cores=[k - 3 for k in frozen], format=format)
    layer(torch.randn(5, 24)).sum().backward()
    for k in range(3):
        assert {parameter.grad is None for parameter in layer.cores.parameters_of(k)} == {k in frozen}
    assert layer.frozen_cores == frozen


def test_a_disabled_core_in_the_middle_is_a_kronecker_identity():
    layer = t3.TTLinear(24, 24, raw_shape=((2, 3, 4), (2, 3, 4)), tt_rank=2, disabled_cores=[1], dtype=torch.float64)
    first, identity, last = layer.cores
    assert not identity.requires_grad
    outer = torch.einsum("imr,rjn->ijmn", first[0], last[..., 0])
    expected = torch.einsum("ijmn,kl->ikjmln", outer, torch.eye(3, dtype=torch.float64)).reshape(24, 24)
    torch.testing.assert_close(layer.full(), expected, rtol=1e-12, atol=1e-12)


@every_format_with_disabled_cores
@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_disabled_core_is_a_rectangular_identity_in_ranks_and_factors(k, format):
    ranks = {"tensor_ring": [2, 3, 2], "cp": 3}.get(format, [3, 2])
    layer = t3.TTLinear(60, 24, raw_shape=((2, 3, 4), (5, 4, 3)), tt_rank=ranks, disabled_cores=[k], format=format)
    core = layer.live_cores()[k]
    for a, i, j, b in itertools.product(*map(range, core.shape)):
        assert core[a, i, j, b] == float(a == b and i == j)
    layer(torch.randn(2, 60)).sum().backward()
    for index in range(3):
        assert {parameter.grad is None for parameter in layer.cores.parameters_of(index)} == {index == k}


@pytest.mark.parametrize(("format", "times"), [("tensor_train", 1), ("tensor_ring", 3)])
def test_disabled_cores_alone_are_the_identity_for_each_outer_rank(format, times):
    layer = t3.TTLinear(24, 24, raw_shape=((4, 6), (4, 6)), tt_rank=3, disabled_cores=[0, 1], format=format)
    torch.testing.assert_close(layer.full(), times * torch.eye(24), rtol=0, atol=0)


def test_with_every_core_disabled_the_layer_passes_its_input_through():
    layer = t3.TTLinear(24, 24, tt_rank=1, disabled_cores=range(3), bias=False)
    x = torch.randn(5, 24)
    assert torch.equal(layer(x), x)


@every_format
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", torch.sin, nn.ELU()])
def test_with_core_activation_the_layer_is_not_linear(activation, format):
    layer = t3.TTLinear(24, 36, tt_rank=3, bias=False, core_activation=activation, init=1.0, format=format)
    x, other = torch.randn(5, 24), torch.randn(5, 24)
    assert not layer.is_linear
    assert not torch.allclose(layer(x + other), layer(x) + layer(other), rtol=0.1, atol=0.1)
    for call in (layer.full, layer.network):
        with pytest.raises(
            ValueError, match="Only a linear layer has a weight matrix and can be merged; got core_activation="
        ):
            call()
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(x), layer(x), rtol=0, atol=0)


@every_format
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
@pytest.mark.parametrize("zero_core", [0, 1, 2])
def test_core_activations_keep_the_zero_initial_output(activation, zero_core, format):
    layer = t3.TTLinear(24, 36, tt_rank=3, core_activation=activation, zero_core=zero_core, format=format)
    assert torch.count_nonzero(layer(torch.randn(5, 24))) == 0


@every_format_with_disabled_cores
def test_reset_parameters_keeps_the_parameters_that_the_optimizer_holds(format):
    layer = t3.TTLinear(24, 36, tt_rank=3, bias="tt", disabled_cores=[1], zero_core=2, format=format)
    before = {name: (parameter, parameter.clone()) for name, parameter in layer.named_parameters()}
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(1.0)
    layer.reset_parameters()
    assert torch.count_nonzero(layer(torch.randn(2, 24))) == 0
    for name, parameter in layer.named_parameters():
        assert parameter is before[name][0]
    changed = {name: not torch.equal(parameter, before[name][1]) for name, parameter in layer.named_parameters()}
    assert not changed.pop("cores.1")
    assert any(changed.values())


@pytest.mark.parametrize("format", ["tensor_train", "tensor_ring"])
def test_const_init_computes_the_mean_of_the_inputs(format):
    layer = t3.TTLinear(24, 36, bias=False, init="const", format=format, dtype=torch.float64)
    x = torch.randn(5, 24, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x.mean(-1, keepdim=True).expand(5, 36))


@every_format_with_disabled_cores
@pytest.mark.parametrize("bias", ["dense", "tt"])
def test_meta_construction_then_loading_with_assign(bias, format):
    fields = {"tt_rank": 3, "bias": bias, "frozen_cores": [0], "disabled_cores": [1], "format": format}
    source = t3.TTLinear(24, 36, **fields)
    layer = t3.TTLinear(24, 36, **fields, device="meta")
    assert all(parameter.is_meta for parameter in layer.parameters())
    layer.load_state_dict(source.state_dict(), assign=True)
    x = torch.randn(5, 24)
    torch.testing.assert_close(layer(x), source(x), rtol=0, atol=0)
    torch.testing.assert_close(layer.full(), source.full(), rtol=0, atol=0)
    for k in range(3):
        assert {parameter.requires_grad for parameter in layer.cores.parameters_of(k)} == {k == 2}


@every_format_with_disabled_cores
def test_meta_construction_then_reset(format):
    fields = {"tt_rank": 3, "disabled_cores": [1], "zero_core": -1, "format": format}
    layer = t3.TTLinear(24, 36, **fields, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(float("nan"))
    layer.reset_parameters()
    assert torch.count_nonzero(layer(torch.randn(5, 24))) == 0
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert torch.equal(layer.cores[1], t3.TTLinear(24, 36, **fields).cores[1])


def test_state_dict_round_trip():
    source, layer = (t3.TTLinear(24, 36, tt_rank=3, bias="tt") for _ in range(2))
    assert set(source.state_dict()) == {*(f"cores.{k}" for k in range(3)), *(f"bias.cores.{k}" for k in range(3))}
    layer.load_state_dict(source.state_dict())
    x = torch.randn(5, 24)
    torch.testing.assert_close(layer(x), source(x), rtol=0, atol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@every_format
def test_copies_compute_the_same_and_are_independent(copied, format):
    layer = t3.TTLinear(24, 36, tt_rank=3, core_activation="gelu", bias="tt", format=format)
    other = copied(layer)
    x = torch.randn(5, 24)
    expected = layer(x).detach()
    torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
    nn.init.zeros_(layer.cores.parameters_of(0)[-1])
    torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
    assert not torch.equal(layer(x), expected)


@every_format
@pytest.mark.parametrize("plan", ["sequential", "materialised"])
@pytest.mark.parametrize("bias", ["dense", "tt"])
def test_gradcheck(plan, bias, format):
    layer = t3.TTLinear(6, 4, d=2, tt_rank=2, bias=bias, plan=plan, format=format, dtype=torch.float64)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def forward(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(forward, (x, *(p.detach().requires_grad_() for p in parameters)))


@pytest.mark.parametrize("bias", ["dense", "tt", "none"])
@pytest.mark.parametrize("x_dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@every_format
def test_float32_parameters_support_any_dtype_of_x(x_dtype, bias, format):
    layer = t3.TTLinear(24, 36, tt_rank=3, bias=bias, format=format)
    x = torch.randn(5, 24).to(x_dtype)
    y = layer(x)
    assert y.dtype == x_dtype
    torch.testing.assert_close(y.float(), layer(x.float()), rtol=0.01, atol=0.01)
    y.sum().backward()
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {torch.float32}


@pytest.mark.parametrize("x_dtype", [torch.bfloat16, torch.float32])
@every_format
def test_autocast_follows_linear(x_dtype, format):
    layer, dense = t3.TTLinear(24, 36, tt_rank=3, bias="tt", format=format), nn.Linear(24, 36)
    x = torch.randn(5, 24).to(x_dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = layer(x), dense(x)
        assert layer.full().dtype == torch.float32
    assert y.dtype == expected.dtype == torch.bfloat16
    y.float().sum().backward()
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {torch.float32}


@every_format
def test_whole_layer_in_bfloat16(format):
    layer = t3.TTLinear(24, 36, tt_rank=3, bias="tt", format=format, dtype=torch.bfloat16)
    assert layer(torch.randn(5, 24, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer.full().dtype == torch.bfloat16


@every_format
def test_compiles_without_graph_breaks(format):
    layer = t3.TTLinear(24, 36, tt_rank=3, bias="tt", format=format)
    slot = list(layer.shareable())[1]
    owner = nn.ParameterDict({"core": layer.shareable()[slot].detach().clone()})
    layer.share(slot, owner, "core")
    x = torch.randn(5, 24)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


BAD_ARGUMENTS = [
    ({"in_features": 0}, ValueError, "in_features must be at least 1; got 0"),
    ({"out_features": 2.5}, TypeError, "out_features must be an integer"),
    ({"dtype": torch.int64}, TypeError, "dtype must be a floating-point dtype; got torch.int64"),
    ({"d": 0}, ValueError, "d must be at least 1"),
    ({"tt_rank": 0}, ValueError, "The rank must be at least 1"),
    ({"tt_rank": "8"}, TypeError, "The rank must be an integer"),
    ({"tt_rank": [2]}, ValueError, "the 2 interior ranks of 3 cores"),
    ({"tt_rank": [100, 2]}, ValueError, "Rank 1 of .* must be at most 6"),
    ({"raw_shape": ((6, 6), (4, 5))}, ValueError, "must multiply to in_features = 24; got .4, 5. with the product 20"),
    ({"raw_shape": ((6, 5), (4, 6))}, ValueError, "must multiply to out_features = 36"),
    ({"raw_shape": (36, 24)}, TypeError, "raw_shape must be a sequence of integers"),
    ({"shape_mode": "up"}, ValueError, "shape_mode must be one of"),
    ({"bias": "sparse"}, ValueError, "bias must be True, False, 'dense', 'tt' or 'none'; got 'sparse'"),
    ({"bias": torch.ones(36)}, ValueError, "got tensor"),
    ({"bias": None}, ValueError, "got None"),
    ({"init": "zeros"}, ValueError, "init must be one of"),
    ({"plan": "fast"}, ValueError, "plan must be one of"),
    ({"core_activation": "sigmoid"}, ValueError, "core_activation must be one of relu, gelu, silu, tanh, a callable"),
    ({"core_activation": ["relu"]}, ValueError, "core_activation must be one of"),
    ({"core_activation": "relu", "plan": "materialised"}, ValueError, "are computed core by core"),
    ({"frozen_cores": 1}, TypeError, "frozen_cores must be a sequence of indices; got 1"),
    ({"frozen_cores": "01"}, TypeError, "frozen_cores must be a sequence of indices; got '01'"),
    ({"frozen_cores": [0.0]}, TypeError, "each of frozen_cores must be an integer; got 0.0"),
    ({"disabled_cores": [3]}, ValueError, "each of disabled_cores must lie between -3 and 2; got 3"),
    ({"frozen_cores": [0], "disabled_cores": [-3]}, ValueError, r"either frozen or disabled; got \[0\] in both"),
    ({"zero_core": 3}, ValueError, "zero_core must lie between -3 and 2; got 3"),
    ({"zero_core": True}, TypeError, "zero_core must be an integer; got True"),
    ({"zero_core": -1, "frozen_cores": [2]}, ValueError, "zero_core = 2, which is frozen or disabled"),
    ({"zero_core": 0, "disabled_cores": [0]}, ValueError, "zero_core = 0, which is frozen or disabled"),
    (
        {"format": "tensor_tree"},
        ValueError,
        "format must be one of tensor_train, tensor_ring, tensor_basis, cp, tu",
    ),
    ({"format": "tensor_ring", "tt_rank": [2, 2]}, ValueError, "must name r_0 to r_2"),
    ({"format": "tensor_basis", "init": "ones"}, ValueError, "got init='ones' with format='tensor_basis'"),
    ({"zero_core": 0, "init": "const"}, ValueError, "got init='const' and zero_core = 0"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_invalid_arguments_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        t3.TTLinear(**{"in_features": 24, "out_features": 36, **arguments})


def test_invalid_input_raises():
    layer = t3.TTLinear(24, 36)
    with pytest.raises(ValueError, match=r"The last dimension of x must be 24; got the shape \(2, 36\)"):
        layer(torch.randn(2, 36))
    with pytest.raises(TypeError, match="x must be a floating-point tensor"):
        layer(torch.zeros(2, 24, dtype=torch.int64))


@every_format
def test_the_network_of_a_layer_is_valid_and_follows_its_parameters(format):
    """A layer builds its network without checks; the cores must pass them, also after every kind of change."""
    layer = t3.TTLinear(24, 36, tt_rank=3, format=format)
    for change in (lambda: None, layer.double, layer.reset_parameters, lambda: layer.to(torch.bfloat16)):
        change()
        network = layer.network()
        checked = t3.FORMATS[format](layer.live_cores())
        assert type(network) is type(checked)
        assert all(torch.equal(a, b) for a, b in zip(network.cores, checked.cores, strict=True))
        assert [tuple(core.shape) for core in network.cores] == layer.core_shapes
        assert network.dtype == next(layer.parameters()).dtype


def test_numpy_ints_are_ints():
    layer = t3.TTLinear(24, 36, tt_rank=np.int64(3), frozen_cores=np.array([0, 2]))
    assert layer.ranks == (1, 3, 3, 1)
    assert layer.frozen_cores == (0, 2)


def test_a_partial_is_an_activation():
    layer = t3.TTLinear(24, 36, core_activation=functools.partial(nn.functional.leaky_relu, negative_slope=0.2))
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    assert layer(torch.randn(2, 24)).shape == (2, 36)
