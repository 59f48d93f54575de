"""Mixed cores against explicit sums, the variance of the initial matrix, and a basis shared by two layers."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import t3nsor as t3

SHAPES = [(1, 3, 2, 3), (3, 3, 3, 3), (3, 4, 4, 1)]  # 24 -> 36 = (3, 3, 4) x (2, 3, 4), rank 3


def basis_layer(basis_size=5, **options):
    return t3.TTLinear(24, 36, bias=False, tt_rank=3, format=t3.TensorBasisFormat(basis_size), **options)


class Pair(nn.Module):
    """Two layers with one basis."""

    def __init__(self, device=None):
        super().__init__()
        self.shared = nn.ParameterDict()
        self.first, self.second = basis_layer(device=device), basis_layer(device=device)
        for slot, basis in self.first.shareable().items():
            self.shared[slot] = nn.Parameter(basis.detach().clone())
        for layer in (self.first, self.second):
            for slot in self.shared:
                layer.share(slot, self.shared, slot)


def test_each_core_is_the_sum_of_the_basis_weighted_by_the_coefficients(dense_of):
    layer = basis_layer(dtype=torch.float64)
    cores = []
    for coefficients, basis in zip(layer.cores.coefficients, layer.cores.basis, strict=True):
        core = torch.zeros(basis.shape[1:], dtype=torch.float64)
        for b in range(5):
            core += coefficients[b].item() * basis[b].detach()
        cores.append(core)
    assert [tuple(core.shape) for core in cores] == SHAPES == [tuple(core.shape) for core in layer.live_cores()]
    torch.testing.assert_close(layer.full(), dense_of(cores), rtol=1e-12, atol=1e-12)


def test_the_parameter_count_without_sharing_has_a_closed_form():
    train_parameters = sum(math.prod(shape) for shape in SHAPES)
    assert sum(p.numel() for p in basis_layer().parameters()) == 5 * train_parameters + 3 * 5
    assert (
        sum(p.numel() for p in t3.TTLinear(24, 36, bias=False, tt_rank=3, format="tensor_basis").parameters())
        == 4 * train_parameters + 3 * 4
    )
    disabled = basis_layer(disabled_cores=[1])
    middle = math.prod(SHAPES[1])
    assert sum(p.numel() for p in disabled.parameters()) == 5 * (train_parameters - middle) + middle + 2 * 5
    assert t3.describe(basis_layer()).parameters == 5 * train_parameters + 3 * 5


@pytest.mark.parametrize("basis_size", [1, 2, 8])
def test_the_matrix_has_the_requested_variance(basis_size):
    layer = basis_layer(basis_size, init=0.3)
    squares = []
    for _ in range(400):
        layer.reset_parameters()
        squares.append(layer.full().detach().square().mean())
        for coefficients in layer.cores.coefficients:
            torch.testing.assert_close(coefficients.norm(), torch.tensor(1.0))
    squares = torch.stack(squares)
    error = squares.std() / 20
    assert error < 0.1 * 0.09  # sharp enough to tell a wrong factor
    assert abs(squares.mean() - 0.09) <= 5 * error


@pytest.mark.parametrize("zero_core", [0, 1, 2])
def test_coefficients_are_zero_initially_and_all_parameters_learn_within_two_steps(zero_core):
    layer = basis_layer(zero_core=zero_core)
    x, target = torch.randn(5, 24), torch.randn(5, 36)
    assert layer.cores.basis[zero_core].any()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    moved = set()
    for expected in ({f"cores.coefficients.{zero_core}"}, {name for name, _ in layer.named_parameters()}):
        optimizer.zero_grad()
        (layer(x) - target).square().sum().backward()
        moved = {name for name, parameter in layer.named_parameters() if parameter.grad.any()}
        assert moved == expected
        optimizer.step()


def test_the_first_gradient_is_the_product_of_basis_and_core_gradient():
    layer, plain = basis_layer(zero_core=2, dtype=torch.float64), t3.TTLinear(24, 36, bias=False, tt_rank=3)
    plain = plain.double()
    with torch.no_grad():
        for core, mixed in zip(plain.cores, layer.live_cores(), strict=True):
            core.copy_(mixed)
    x, target = torch.randn(5, 24).double(), torch.randn(5, 36).double()
    for each in (layer, plain):
        (each(x) - target).square().sum().backward()
    for k, core in enumerate(plain.cores):
        coefficients, basis = layer.cores.coefficients[k], layer.cores.basis[k]
        torch.testing.assert_close(coefficients.grad, (basis * core.grad).sum((1, 2, 3, 4)), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(basis.grad, coefficients[:, None, None, None, None] * core.grad)


def test_two_layers_of_one_basis_differ_and_store_it_once():
    pair = Pair()
    assert not torch.allclose(pair.first.full(), pair.second.full())
    names = [f"shared.basis_{k}" for k in range(3)]
    names += [f"{layer}.cores.coefficients.{k}" for layer in ("first", "second") for k in range(3)]
    assert sorted(pair.state_dict()) == sorted(names)
    assert sorted(name for name, _ in pair.named_parameters(remove_duplicate=False)) == sorted(names)


def test_the_gradient_of_a_shared_basis_is_the_sum_over_layers():
    pair = Pair().double()
    alone = [basis_layer(dtype=torch.float64) for _ in range(2)]
    x = torch.randn(5, 24, dtype=torch.float64)
    with torch.no_grad():
        for own, layer in zip(alone, (pair.first, pair.second), strict=True):
            for k in range(3):
                own.cores.coefficients[k].copy_(layer.cores.coefficients[k])
                own.cores.basis[k].copy_(pair.shared[f"basis_{k}"])
    (pair.first(x) + pair.second(x)).square().sum().backward()
    (alone[0](x) + alone[1](x)).square().sum().backward()
    for k in range(3):
        expected = alone[0].cores.basis[k].grad + alone[1].cores.basis[k].grad
        torch.testing.assert_close(pair.shared[f"basis_{k}"].grad, expected, rtol=1e-10, atol=1e-12)
        for own, layer in zip(alone, (pair.first, pair.second), strict=True):
            torch.testing.assert_close(layer.cores.coefficients[k].grad, own.cores.coefficients[k].grad)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_shares_within_itself(copied):
    pair = Pair()
    other = copied(pair)
    x = torch.randn(5, 24)
    assert torch.equal(other.first(x), pair.first(x))
    with torch.no_grad():
        other.shared["basis_0"].zero_()
    assert not other.first.full().any()
    assert not other.second.full().any()
    assert pair.first.full().any()


@pytest.mark.parametrize(("assign", "device"), [(False, None), (True, "meta")])
def test_loading_the_basis_takes_effect_in_both_layers(assign, device):
    source, pair = Pair(), Pair(device)
    pair.load_state_dict(source.state_dict(), assign=assign)
    x = torch.randn(5, 24)
    assert torch.equal(pair.first(x), source.first(x))
    assert torch.equal(pair.second(x), source.second(x))


def test_a_frozen_core_keeps_its_basis_and_its_coefficients():
    layer = basis_layer(frozen_cores=[1])
    owner = nn.ParameterDict({"b": torch.randn(5, *SHAPES[1])})
    layer.share("basis_1", owner, "b")
    trained = [name for name, parameter in layer.named_parameters() if parameter.requires_grad]
    assert trained == [f"cores.{part}.{k}" for part in ("coefficients", "basis") for k in (0, 2)]
    assert not owner["b"].requires_grad


@pytest.mark.parametrize("slot", [0, "basis_1", "basis_3", "coefficients_0"])
def test_an_unknown_slot_raises(slot):
    layer = basis_layer(disabled_cores=[1])
    with pytest.raises(ValueError, match="slot must be one of basis_0, basis_2; got"):
        layer.share(slot, nn.ParameterDict({"b": torch.randn(5, *SHAPES[0])}), "b")


@pytest.mark.parametrize(("basis_size", "error"), [(0, ValueError), (2.0, TypeError), (None, TypeError)])
def test_an_invalid_basis_size_raises(basis_size, error):
    with pytest.raises(error, match=r"basis_size must be (at least 1|an integer); got"):
        t3.TensorBasisFormat(basis_size)


def test_the_format_with_its_default_parameter_is_the_format_by_name():
    by_name, by_object = (
        t3.TTLinear(24, 36, tt_rank=3, format=format).state_dict()
        for format in ("tensor_basis", t3.TensorBasisFormat())
    )
    assert {name: value.shape for name, value in by_name.items()} == {n: v.shape for n, v in by_object.items()}
    assert basis_layer(6).format == "tensor_basis"
    assert type(t3.random_matrix(((2, 3), (3, 2)), 2, format=t3.TensorBasisFormat(6))) is t3.TensorBasis
