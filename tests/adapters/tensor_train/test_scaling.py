"""Scalings by name: the first step of LoRA, alpha = 16, by direct simulation, in the table and in folders."""

import json
import math
from dataclasses import replace

import peft
import pytest
import torch
from torch import nn

import adapters
from adapters import AdapterConfig, ConfigurationError
from adapters.tensor_train.scaling import mean_sites, named_scaling

SIZE = 96


def decrease(delta, gradients):
    """Sum of |dL/dG| over the zero core, for these gradients (out, in) of W at the places that share it."""
    layer = delta.linear
    parameter = layer.cores.zero_parameter(layer.zero_core)
    (sum(gradients) * delta.delta_weight()).sum().backward()
    size, parameter.grad = parameter.grad.abs().sum().item(), None
    return size


def lora_decrease(gradients):
    """The mean of the same over the starts of as many layers of LoRA, see the first test."""
    return sum(math.sqrt(2 / math.pi) * 16 * len(gradient) / math.sqrt(3) for gradient in gradients)


@pytest.mark.parametrize("sizes", [(SIZE, SIZE), (SIZE, 4 * SIZE), (4 * SIZE, SIZE)], ids=str)
@pytest.mark.parametrize("rank", [1, 8])
def test_the_measure_is_the_first_step_of_lora_in_peft(sizes, rank):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(*sizes, bias=False))
    config = peft.LoraConfig(r=rank, lora_alpha=16, target_modules=["0"])
    layer = peft.get_peft_model(base, config).base_model.model[0]
    gradient = torch.randn(*reversed(sizes))
    total = 0.0
    for _ in range(100):
        layer.reset_lora_parameters("default", init_lora_weights=True)
        B, A = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        B.grad = None
        (gradient * (layer.scaling["default"] * (B @ A))).sum().backward()
        total += B.grad.abs().sum().item()
    assert total / 100 == pytest.approx(lora_decrease([gradient]), rel=0.03)


KINDS = {
    "tt_lora": {"rank": 4},
    "rank 2": {"rank": 2},
    "two cores": {"rank": 4, "d": 2},
    "four cores, he": {"rank": 4, "d": 4, "init": "he"},
    "ascending": {"rank": 8, "shape_mode": "ascending", "zero_core": 0},
    "lora": {"rank": 8, "modes": ["in", "out"]},
    "lora, std": {"rank": 1, "modes": ["in", "out"], "init": 0.02},
    "orthogonal": {"rank": 4, "init": "orthogonal"},
    "ring": {"rank": 4, "format": "tensor_ring"},
    "cp": {"rank": 6, "format": "cp"},
    "tucker": {"rank": 4, "format": "tucker"},
    "basis": {"rank": 4, "format": "tensor_basis", "basis_size": 16},
    "lokr": adapters.published("lokr", rank=8, scaling="auto"),
    "metatt": adapters.published("metatt_4d", rank=8, scaling="auto"),
    "lotr": adapters.published("lotr", rank=16, scaling="auto"),
}


@pytest.mark.parametrize("sizes", [(SIZE, SIZE), (SIZE, 4 * SIZE), (4 * SIZE, SIZE)], ids=str)
@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS.keys())
def test_the_first_step_is_that_of_lora(fields, sizes):
    """The mean absolute value is below the root mean square, visibly where cores are as small as those of lokr."""
    torch.manual_seed(0)
    config = AdapterConfig.from_dict({"kind": "tt_lora", **fields})
    ratios = []
    delta = config.build(*sizes)
    for _ in range(48):
        delta.linear.reset_parameters()
        gradients = [torch.randn(*reversed(sizes))]
        ratios.append(decrease(delta, gradients) / lora_decrease(gradients))
    assert 0.85 < sum(ratios) / len(ratios) < 1.06


@pytest.mark.parametrize(
    ("description", "groups"),
    [
        ({"shared_cores": [2]}, [2, 2]),  # wi of two layers of the encoder and of the decoder, see below
        ({"shared_cores": [0]}, [1, 1, 1, 1]),  # the zero core is each one's own
        ({"modes": ["in", "layer", "out"], "init": "identity", "zero_core": 0}, [4]),
        ({"modes": ["in", "layer", "out"], "rank": 8, "zero_core": 1}, [1, 1, 1, 1]),
    ],
    ids=str,
)
def test_gradients_of_places_that_share_the_zero_core_add_up(tiny_t5, description, groups):
    torch.manual_seed(0)
    fields = {"kind": "tt_lora", "rank": 4, "target_modules": ["wi"], "share_across": ["layers"]}
    if "modes" in description:
        del fields["share_across"]
    model = adapters.attach(tiny_t5(), fields | description)
    deltas = [m for m in model.modules() if isinstance(m, adapters.TensorTrainDelta)]
    by_core = {}
    for delta in deltas:
        by_core.setdefault(id(delta.linear.cores.zero_parameter(delta.linear.zero_core)), []).append(delta)
    counts = sorted(len(group) for group in by_core.values())
    assert sum(counts) == len(deltas) == 4
    ratios = []
    for _ in range(40):
        ours = theirs = 0.0
        for group in by_core.values():
            group[0].linear.reset_parameters()
            gradients = [torch.randn(48, 24) for _ in group]
            ours += decrease(group[0], gradients)
            theirs += lora_decrease(gradients)
        ratios.append(ours / theirs)
    assert sum(ratios) / len(ratios) == pytest.approx(1, rel=0.1)


def squared_gradient(delta, gradients):
    """Sum of (dL/dG)^2 over the zero core, which is the decrease of the loss by gradient descent."""
    layer = delta.linear
    parameter = layer.cores.zero_parameter(layer.zero_core)
    (sum(gradients) * delta.delta_weight()).sum().backward()
    size, parameter.grad = parameter.grad.square().sum().item(), None
    return size


@pytest.mark.parametrize("rank", [1, 8])
def test_rank_stabilized_lora_in_peft_has_one_step_of_gradient_descent_at_any_rank(rank):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(SIZE, 2 * SIZE, bias=False))
    config = peft.LoraConfig(r=rank, lora_alpha=16, use_rslora=True, target_modules=["0"])
    layer = peft.get_peft_model(base, config).base_model.model[0]
    total = 0.0
    for _ in range(100):
        layer.reset_lora_parameters("default", init_lora_weights=True)
        B, A = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        B.grad = None
        (torch.randn(2 * SIZE, SIZE) * (layer.scaling["default"] * (B @ A))).sum().backward()
        total += B.grad.square().sum().item()
    assert total / 100 == pytest.approx(16**2 * 2 * SIZE / 3, rel=0.05)


@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS.keys())
def test_rank_stabilized_has_the_same_step_of_gradient_descent(fields):
    torch.manual_seed(0)
    delta = AdapterConfig.from_dict({"kind": "tt_lora", **fields, "scaling": "rank_stabilized"}).build(SIZE, 2 * SIZE)
    total = 0.0
    for _ in range(32):
        delta.linear.reset_parameters()
        total += squared_gradient(delta, [torch.randn(2 * SIZE, SIZE)])
    assert total / 32 == pytest.approx(16**2 * 2 * SIZE / 3, rel=0.25)


@pytest.mark.parametrize("rank", [2, 8, 32])
def test_named_scalings_of_the_factors_of_lora_are_its_own(rank):
    """A (r, in) of standard deviation a has u^2 = in a^2 = 1 / 3 at PEFT's start a = 1 / sqrt(3 in)."""
    start = {"init": math.sqrt(rank / (3 * SIZE)), "modes": ["in", "out"], "rank": rank}  # of the matrix: sqrt(r) a
    built = {
        name: AdapterConfig.from_dict({"kind": "tt_lora", **start, "scaling": name}).build(SIZE, 2 * SIZE)
        for name in ("auto", "rank_stabilized")
    }
    factor = built["auto"].linear.live_cores()[0].std().item() * math.sqrt(3 * SIZE)
    assert factor * built["auto"].scaling == pytest.approx(16 / rank, rel=0.1)
    assert factor * built["rank_stabilized"].scaling == pytest.approx(16 / math.sqrt(rank), rel=0.1)


def test_a_shared_zero_core_does_not_change_the_rank_stabilized_scaling(tiny_t5):
    fields = {"kind": "tt_lora", "rank": 4, "target_modules": ["wi"], "scaling": "rank_stabilized"}
    shared, own = (adapters.attach(tiny_t5(), fields | more) for more in ({"shared_cores": [2]}, {}))
    assert [delta.scaling for delta in deltas_of(shared)] == [delta.scaling for delta in deltas_of(own)]
    assert adapters.attachments(shared)[0].config.scaling == next(deltas_of(own)).scaling


def test_sites_in_unequal_groups_have_one_scaling():
    q = mean_sites([4, 4, 9])  # s u (2 + 2 + 3) = 17 steps of LoRA
    assert math.sqrt(q) * 7 == pytest.approx(17)
    assert mean_sites([5, 5]) == pytest.approx(5)


def test_the_table_of_minilm():
    """Sum of |gradient| at scaling 1 on real gradients: the rule has these ratios between ranks, cores and shapes."""
    measured = {"rank": {2: 0.140, 4: 0.291, 8: 0.724}, "d": {2: 0.822, 3: 0.291, 4: 0.164}}
    for field, table in measured.items():
        default = {"kind": "tt_lora", "rank": 4}
        scalings = {value: AdapterConfig.from_dict(default | {field: value}).build(384, 384).scaling for value in table}
        for value, size in table.items():
            relative = table[4 if field == "rank" else 3]
            center = scalings[4 if field == "rank" else 3]
            assert center / scalings[value] == pytest.approx(size / relative, rel=0.25)


def test_the_numbers_are_in_the_attachment_and_in_the_folder(tiny_t5, tmp_path, monkeypatch):
    model = adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2})
    config = adapters.attachments(model)[0].config
    assert set(config.scaling_pattern) < {"wi", "wo"}
    assert len({config.scaling, *config.scaling_pattern.values()}) == 2
    adapters.save(model, tmp_path)
    monkeypatch.setattr("adapters.tensor_train.scaling.LORA_ALPHA", 1000.0)  # another rule
    loaded = adapters.load(tiny_t5(), tmp_path)
    assert adapters.attachments(loaded)[0].config == config
    assert [m.scaling for m in deltas_of(loaded)] == [m.scaling for m in deltas_of(model)]


def test_a_folder_of_an_earlier_version_keeps_its_number(tiny_t5, tmp_path):
    model = adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, "scaling": 1.0})
    adapters.save(model, tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    fields = written["adapters"][0]["config"]
    assert fields["scaling"] == 1.0
    assert fields["scaling_pattern"] is None  # absent in folders written before there was such a field
    assert replace(AdapterConfig.from_dict({k: v for k, v in fields.items() if k != "scaling_pattern"})) == (
        adapters.attachments(model)[0].config
    )


def test_a_second_task_has_the_same_numbers_and_the_same_attachment(tiny_t5):
    model = tiny_t5()
    for task in ("a", "b"):
        adapters.attach(model, {"kind": "tt_lora", "rank": 2}, task)
    assert {a.name for a in adapters.attachments(model)} == {"tt_lora"}


def test_a_pattern_takes_precedence(tiny_t5):
    config = {
        "kind": "tt_lora",
        "rank": 2,
        "scaling_pattern": {"wo": 3.0, "encoder.block.0.layer.1.DenseReluDense.wi": 2},
    }
    model = adapters.attach(tiny_t5(), config)
    scalings = {path: host.beside.tt_lora.active.scaling for path, host in adapters.adapted_modules(model)}
    automatic = named_scaling("auto", next(deltas_of(model)).linear)
    assert scalings.pop("encoder.block.0.layer.1.DenseReluDense.wi") == 2
    assert set(scalings.values()) == {3.0, automatic}


@pytest.mark.parametrize("kind", ["tt_lora", "tt_single"])
def test_auto_is_the_default_and_principal_has_scaling_1(kind):
    assert AdapterConfig.from_dict({"kind": kind}).scaling == "auto"
    if kind == "tt_lora":
        assert AdapterConfig.from_dict({"kind": kind, "init": "principal"}).scaling == 1.0


def test_published_methods_name_their_scaling():
    sizes = adapters.Sizes()
    assert {adapters.published(name, sizes=sizes)["scaling"] for name in adapters.PUBLISHED} == {1.0}


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({"scaling": "automatic"}, "automatic"),
        (
            {"scaling": "rank_stabilized", "init": "principal"},
            "needs a core that starts at zero; got 'rank_stabilized'",
        ),
        ({"scaling": math.inf}, "inf"),
        ({"scaling_pattern": {"wi": math.nan}}, "nan"),
        ({"scaling_pattern": {"wi": 1.0}, "modes": ["in", "layer", "out"]}, "wi"),
    ],
    ids=str,
)
def test_other_values_are_refused(fields, given):
    with pytest.raises(ConfigurationError, match=given):
        AdapterConfig.from_dict({"kind": "tt_lora", **fields})


def deltas_of(model):
    return (m for m in model.modules() if isinstance(m, adapters.TensorTrainDelta))


def test_a_start_without_a_gradient_is_refused():
    config = AdapterConfig.from_dict({"kind": "tt_lora", "rank": 2, "init": 1e-300})
    with pytest.raises(ConfigurationError, match=r"'scaling' can be 'auto' if .* a larger init, or a number"):
        config.build(SIZE, SIZE)
    assert replace(config, scaling=1.0).build(SIZE, SIZE).scaling == 1
