"""parameter_groups: every trainable parameter once, with the rate of its core."""

import peft
import pytest
import torch
from torch import nn

import adapters
from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig

SHAPE = [[16, 2, 2], [2, 2, 16]]  # 64 parameters in the first and the last core of rank 2, 16 in the middle one


def rates(model, **options):
    """The rate of each trainable parameter by name; each is in one group."""
    groups = adapters.parameter_groups(model, 1e-3, **options)
    torch.optim.AdamW(groups)  # refuses a parameter that is in two groups
    by_id = {id(p): group["lr"] for group in groups for p in group["params"]}
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert by_id.keys() == {id(p) for p in trainable.values()}
    return {name: by_id[id(p)] for name, p in trainable.items()}


@pytest.mark.parametrize(
    ("fields", "zero", "smallest"),
    [
        ({"rank": 2, "raw_shape": SHAPE}, "cores.2", "cores.1"),
        ({"rank": 2, "raw_shape": SHAPE, "zero_core": 0, "delta_bias": "dense"}, "cores.0", "cores.1"),
        ({"rank": 2, "modes": ["in", "linear", "out"], "zero_core": 1}, "cores.1", "cores.1"),
        ({"rank": 2, "format": "tensor_basis"}, "coefficients.2", "coefficients.0"),
        ({"rank": 2, "format": "tucker"}, "cores.2", "core_tensor"),
    ],
    ids=str,
)
def test_rates_by_core(fields, zero, smallest):
    base = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    config = TensorTrainConfig(target_modules=["0"], modules_to_save=["2"], **fields)
    model = peft.get_peft_model(base, config)
    found = rates(model, zero_core=16.0, smallest_core=4.0)
    for name, rate in found.items():
        expected = 1e-3 * (16 if name.endswith(zero) else 1) * (4 if name.endswith(smallest) else 1)
        assert rate == pytest.approx(expected), name
    assert set(rates(model).values()) == {1e-3}


def test_shared_cores_and_other_adapters(tiny_t5):
    model = adapters.attach(tiny_t5(), [{"kind": "tt_lora", "rank": 2, "shared_cores": [2]}, {"kind": "bitfit"}])
    found = rates(model, zero_core=16.0)
    fast = {name for name, rate in found.items() if rate == pytest.approx(16e-3)}
    assert fast == {name for name in found if name.startswith("shared_parameters.")}


@pytest.mark.parametrize("key", ["zero_core", "smallest_core", "factors"])
def test_a_factor_that_is_not_positive_is_refused(key):
    with pytest.raises(ConfigurationError, match=f"Key '{key}' of learning_rate_multipliers must be a positive number"):
        adapters.parameter_groups(nn.Linear(2, 2), 1e-3, **{key: 0.0})


def test_the_adapters_of_all_tasks_count_and_frozen_ones_do_not(tiny_t5):
    model = tiny_t5()
    for task in ("a", "b"):
        adapters.attach(model, {"kind": "tt_lora", "rank": 2}, task)
    fast = {name for name, rate in rates(model, zero_core=16.0).items() if rate == pytest.approx(16e-3)}
    assert {name.partition(".tasks.")[2][0] for name in fast} == {"a", "b"}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".tasks.a." in name)
    assert not any(".tasks.b." in name for name in rates(model, zero_core=16.0))


@pytest.mark.parametrize("config", [{"kind": "bitfit"}, {"kind": "tt_lora", "rank": 2, "init": "principal"}], ids=str)
def test_a_factor_without_its_core_is_refused(config, tiny_t5):
    model = adapters.attach(tiny_t5(), config)
    with pytest.raises(ConfigurationError, match="Key 'zero_core' of learning_rate_multipliers needs a trainable core"):
        adapters.parameter_groups(model, 1e-3, zero_core=16.0)
    assert len(adapters.parameter_groups(model, 1e-3)) == 1
