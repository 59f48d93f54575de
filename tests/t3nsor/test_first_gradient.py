"""The closed form of the zero core's first gradient, against random gradients of the dense weight in float64."""

import math

import pytest
import torch

import t3nsor as t3
from t3nsor.first_gradient import first_gradient

SHAPE = ((4, 6, 2), (3, 2, 8))  # 48 x 48
ONE_SIDED = ((1, 1, 48), (6, 8, 1))
LAYERS = {
    "train": {"tt_rank": 4, "zero_core": 2},
    "train, first": {"tt_rank": 4, "zero_core": 0},
    "train, middle, ranks": {"tt_rank": [3, 5], "zero_core": 1, "init": "he"},
    "train, two cores, std": {"tt_rank": 3, "raw_shape": ((6, 8), (8, 6)), "zero_core": 0, "init": 0.02},
    "train, one core": {"tt_rank": 3, "raw_shape": ((48,), (48,)), "zero_core": 0},
    "train, lora": {"tt_rank": 8, "raw_shape": ((1, 48), (48, 1)), "zero_core": 1, "init": "lecun"},
    "train, in in out": {"tt_rank": 4, "raw_shape": ONE_SIDED, "zero_core": 2},
    "train, disabled": {"tt_rank": 4, "zero_core": 2, "disabled_cores": [1]},
    "train, disabled first": {"tt_rank": 4, "zero_core": 2, "disabled_cores": [0]},
    "train, frozen": {"tt_rank": 4, "zero_core": 1, "frozen_cores": [0]},
    "train, orthogonal": {"tt_rank": 4, "zero_core": 1, "init": "orthogonal"},
    "train, identity": {"tt_rank": 4, "zero_core": 0, "init": "identity"},
    "train, identity middle": {"tt_rank": [1, 4, 6, 1], "raw_shape": ONE_SIDED, "zero_core": 1, "init": "identity"},
    "ring": {"format": "tensor_ring", "tt_rank": 4, "zero_core": 2},
    "ring, ranks": {"format": "tensor_ring", "tt_rank": [2, 5, 3], "zero_core": 0},
    "ring, disabled": {"format": "tensor_ring", "tt_rank": 4, "zero_core": 0, "disabled_cores": [1]},
    "cp": {"format": "cp", "tt_rank": 5, "zero_core": 2},
    "cp, first": {"format": "cp", "tt_rank": 5, "zero_core": 0, "init": "he"},
    "cp, disabled": {"format": "cp", "tt_rank": 5, "zero_core": 2, "disabled_cores": [1]},
    "tucker": {"format": "tucker", "tt_rank": 4, "zero_core": 1},
    "tucker, ranks": {"format": "tucker", "tt_rank": [2, 5, 4], "zero_core": 2},
    "basis": {"format": t3.TensorBasisFormat(5), "tt_rank": 4, "zero_core": 2},
    "basis, disabled": {"format": t3.TensorBasisFormat(3), "tt_rank": 4, "zero_core": 1, "disabled_cores": [0]},
}


@pytest.mark.parametrize("fields", LAYERS.values(), ids=LAYERS.keys())
def test_it_is_the_mean_square_over_starts_and_gradients(fields):
    torch.manual_seed(0)
    layer = t3.TTLinear(48, 48, bias=False, dtype=torch.float64, **{"raw_shape": SHAPE} | fields)
    parameter = layer.cores.zero_parameter(layer.zero_core)
    draws = 200
    total = torch.zeros_like(parameter)
    for _ in range(draws):
        layer.reset_parameters()
        gradient = torch.randn(48, 48, dtype=torch.float64)  # dL/dW
        (gradient * layer.full()).sum().backward()
        total += parameter.grad.square()
        parameter.grad = None
    expected = first_gradient(layer)
    assert expected.shape == parameter.shape
    if layer.init == "identity":  # not random: the squared norm of T[e] for every e
        jacobian = torch.autograd.functional.jacobian(lambda p: _full_with(layer, p), parameter.detach())
        torch.testing.assert_close(expected, jacobian.square().sum(dim=(0, 1)), rtol=1e-12, atol=0)
    else:
        assert (total / draws).sum().item() == pytest.approx(expected.sum().item(), rel=0.15)
        assert (total / draws)[expected == 0].sum() == 0


def _full_with(layer, core):
    cores = list(layer.live_cores())
    cores[layer.zero_core] = core
    return t3.TensorTrain(cores).full()


def test_it_neither_reads_values_nor_draws_random_numbers():
    state = torch.get_rng_state()
    with torch.device("meta"):
        layer = t3.TTLinear(768, 3072, zero_core=2, format=t3.TensorBasisFormat(4))
        on_meta = first_gradient(layer)
    assert on_meta.device.type == "cpu"
    assert on_meta.tolist() == pytest.approx([on_meta[0].item()] * 4)
    assert torch.equal(state, torch.get_rng_state())


def test_a_lora_has_the_variance_of_its_factor():
    """B (out, r) zero beside A (r, in) of variance v: in v for each entry."""
    layer = t3.TTLinear(32, 12, tt_rank=4, raw_shape=((1, 12), (32, 1)), zero_core=1, init=0.3)
    deviation = math.sqrt(0.3) * 4 ** (-1 / 4)
    torch.testing.assert_close(first_gradient(layer), torch.full((4, 12, 1, 1), 32 * deviation**2, dtype=torch.float64))


def test_a_layer_without_a_zero_core_is_refused():
    with pytest.raises(ValueError, match="zero_core=None"):
        first_gradient(t3.TTLinear(8, 8))
