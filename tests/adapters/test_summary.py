"""Parameter counts against closed forms, on a tiny T5 and on T5-base on the meta device."""

import json

import pytest
import torch
import transformers

import adapters

BASE = 222_882_048
WI_RANK_8 = 12 * 8 * 8 + 8 * 16 * 8 * 8 + 8 * 16 * 12  # (12, 16, 16) x (8, 8, 12), and as many for wo


@pytest.fixture
def t5_base(tiny_t5):
    """T5-base on the meta device, with the vocabulary of the published counts."""
    config = transformers.T5Config(
        vocab_size=32100, d_model=768, d_ff=3072, num_layers=12, num_decoder_layers=12, num_heads=12
    )
    with torch.device("meta"):
        return transformers.T5ForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("description", "trainable"),
    [
        ({"kind": "layer_norm", "trainable": False}, 0),
        ({"kind": "tt_lora", "rank": 8, "shared_cores": [1]}, 2 * 24 * WI_RANK_8 - 2 * 23 * 8 * 16 * 8 * 8),
        (
            {"kind": "tt_lora", "rank": 8, "shared_cores": [1], "share_across": ["layers"], "format": "tensor_ring"},
            2 * (24 * (8 * 96 * 8 + 8 * 192 * 8) + 8 * 128 * 8),
        ),
        ({"kind": "tt_lora", "rank": 8, "format": "tensor_basis", "basis_size": 6}, 2 * (6 * WI_RANK_8 + 24 * 3 * 6)),
        ({"kind": "tt_lora", "shape_mode": "ascending", "frozen_cores": [0]}, 2 * 24 * (WI_RANK_8 - 12 * 8 * 8)),
        (
            {"kind": "tt_lora", "rank": 4, "delta_bias": "dense", "target_modules": ["wi"], "shape_mode": "ascending"},
            24 * (384 + 2048 + 768 + 3072),
        ),
        (
            {"kind": "tt_lora", "d": 2, "rank": 4, "target_modules": ["q"], "shape_mode": "ascending"},
            36 * 4 * (24 * 24 + 32 * 32),
        ),
        ({"kind": "tt_single", "rank": 2, "sublayers": ["cross_attention"]}, 12 * (2 * 64 + 4 * 64 + 2 * 144)),
    ],
    ids=str,
)
def test_counts_on_t5_base(t5_base, description, trainable):
    counts = adapters.summary(adapters.attach(t5_base, description))
    assert counts.base.parameters == BASE
    assert counts.total.trainable == trainable
    assert counts.share == trainable / BASE
    assert counts.total.trainable_bytes == 4 * trainable


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_groups_and_layers_add_up_and_count_bytes(tiny_t5, dtype):
    description = [
        {"kind": "tt_lora", "rank": 2, "shape_mode": "ascending"},
        {"kind": "tt_lora", "rank": 3},
        {"kind": "scale_norm"},
    ]
    model = adapters.attach(tiny_t5().to(dtype), description)
    counts = adapters.summary(model)
    assert counts.total.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert counts.total.bytes == sum(parameter.nbytes for parameter in model.parameters())
    for parts in (counts.groups, counts.layers):
        for field in ("parameters", "trainable", "bytes", "trainable_bytes"):
            assert sum(getattr(part, field) for part in parts.values()) == getattr(counts.total, field)
    assert set(counts.groups) == {"base weights", "layer norms", "tt_lora", "tt_lora_2", "scale_norm"}
    one = 6 * 2 + 2 * 12 * 2 + 2 * 16  # 24 = 2 3 4, 48 = 3 4 4, rank 2
    assert counts.groups["tt_lora"].trainable == counts.groups["tt_lora"].parameters == 8 * one
    assert counts.groups["scale_norm"].trainable_bytes == 4 * 12
    assert counts.groups["layer norms"].bytes == 12 * 24 * dtype.itemsize
    assert counts.groups["base weights"].trainable == 0
    assert set(counts.layers) == {"shared", "encoder 0", "encoder 1", "encoder", "decoder 0", "decoder 1", "decoder"}
    assert counts.layers["encoder"].trainable == 1


def test_shared_parameters_have_their_own_row(tiny_t5):
    description = [
        {"kind": "tt_lora", "rank": 2, "shared_cores": [0]},
        {"kind": "tt_lora", "rank": 2, "shape_mode": "ascending"},
    ]
    counts = adapters.summary(adapters.attach(tiny_t5(), description, "tt_lora_2"))
    core, rest = 6 * 2, 2 * 12 * 2 + 2 * 16
    assert counts.groups["tt_lora"].trainable == 8 * rest
    assert counts.groups["tt_lora, shared across layers"].trainable == 2 * core
    assert counts.groups["tt_lora_2"].trainable == 8 * (core + rest)
    assert counts.layers["shared_parameters"].trainable == 2 * core


def test_tucker_core_tensor_has_its_own_row(tiny_t5):
    description = {
        "kind": "tt_lora",
        "format": "tucker",
        "rank": [2, 3, 4],
        "target_modules": ["wi"],
        "frozen_cores": [0],
    }
    rows = adapters.summary(adapters.attach(tiny_t5(), description)).to_dict()["cores"]
    assert [(row["core"], row["modules"], row["state"]) for row in rows] == [
        (0, 4, "frozen"),
        (1, 4, "trains"),
        (2, 4, "trains"),
        ("core tensor", 4, "trains"),
    ]
    assert rows[-1]["shape"] == [2, 3, 4]


def test_summary_has_every_setting_of_a_core(tiny_t5):
    description = [
        {
            "kind": "tt_lora",
            "rank": 2,
            "target_modules": ["wi"],
            "shared_cores": [0],
            "frozen_cores": [0, 1],
            "delta_bias": "tt",
        },
        {"kind": "tt_lora", "rank": 2, "target_modules": ["wo"], "format": "tensor_basis", "basis_size": 3}
        | {"disabled_cores": [1], "core_activation": "gelu", "share_across": ["layers", "tasks"]},
        {"kind": "tt_adapter", "reduction_factor": 4, "rank": 2, "d": 2, "format": "tensor_ring"}
        | {"sublayers": ["feed_forward"], "layers": [0]},
        {"kind": "tt_layer_norm", "rank": 2, "sublayers": ["final"], "d": 2},
    ]
    model = adapters.attach(adapters.attach(tiny_t5(), description[1], "b"), description[1], "a")
    adapters.attach(model, [description[0], *description[2:]])
    basis = "trains, from 3 basis cores, shared across layers, tasks"
    rows = [
        # adapter, place, format, core, shape, modules, state
        ("tt_lora", "wo", "tensor_basis, gelu", 0, (1, 2, 3, 2), 8, basis),
        ("tt_lora", "wo", "tensor_basis, gelu", 1, (2, 3, 4, 2), 8, "disabled"),
        ("tt_lora", "wo", "tensor_basis, gelu", 2, (2, 4, 4, 1), 8, basis),
        ("tt_lora_2", "wi", "tensor_train", 0, (1, 3, 2, 2), 4, "frozen, shared across layers"),
        ("tt_lora_2", "wi", "tensor_train", 1, (2, 4, 3, 2), 4, "frozen"),
        ("tt_lora_2", "wi", "tensor_train", 2, (2, 4, 4, 1), 4, "trains"),
        ("tt_lora_2", "wi bias", "tensor_train", 0, (1, 3, 1, 2), 4, "trains"),
        ("tt_lora_2", "wi bias", "tensor_train", 1, (2, 4, 1, 2), 4, "trains"),
        ("tt_lora_2", "wi bias", "tensor_train", 2, (2, 4, 1, 1), 4, "trains"),
        ("tt_adapter", "wo down", "tensor_ring", 0, (2, 2, 4, 2), 2, "trains"),
        ("tt_adapter", "wo down", "tensor_ring", 1, (2, 3, 6, 2), 2, "trains"),
        ("tt_adapter", "wo up", "tensor_ring", 0, (2, 4, 2, 2), 2, "trains"),
        ("tt_adapter", "wo up", "tensor_ring", 1, (2, 6, 3, 2), 2, "trains"),
        ("tt_layer_norm", "final_layer_norm", "tensor_train", 0, (1, 4, 1, 2), 2, "trains"),
        ("tt_layer_norm", "final_layer_norm", "tensor_train", 1, (2, 6, 1, 1), 2, "trains"),
    ]
    counts = adapters.summary(model)
    names = ("adapter", "place", "format", "core", "shape", "modules", "state")
    described = json.loads(json.dumps(counts.to_dict()["cores"]))
    assert described == counts.to_dict()["cores"]
    assert [tuple({**row, "shape": tuple(row["shape"])}[name] for name in names) for row in described] == rows
    lines = [" ".join(line.split()) for line in str(counts).splitlines()]
    assert "tt_lora wo tensor_basis, gelu 1 2x3x4x2 8 disabled" in lines
    assert "tt_lora_2 wi tensor_train 0 1x3x2x2 4 frozen, shared across layers" in lines


def test_merged_model_has_the_same_counts(tiny_t5, linear_adapter_per_host):
    model = adapters.attach(tiny_t5(), linear_adapter_per_host)
    before = adapters.summary(model)
    adapters.merge(model)
    assert adapters.summary(model) == before


@pytest.mark.parametrize(
    ("description", "names"),
    [
        ({"kind": "tt_lora", "core_activation": "gelu"}, ["tt_lora"]),
        ([{"kind": "tt_lora"}, {"kind": "tt_lora", "core_activation": "relu"}, {"kind": "scale_norm"}], ["tt_lora_2"]),
        ([{"kind": "tt_adapter"}, {"kind": "tt_single"}, {"kind": "bottleneck"}], ["tt_adapter", "bottleneck"]),
    ],
    ids=str,
)
def test_adapters_that_cannot_be_merged_are_logged_and_listed(tiny_t5, caplog, description, names):
    caplog.set_level("INFO", logger="adapters")
    configs = adapters.as_configs(
        [
            {**entry, "reduction_factor": 4} if entry["kind"] in ("tt_adapter", "bottleneck") else entry
            for entry in (description if isinstance(description, list) else [description])
        ]
    )
    model = adapters.attach(tiny_t5(), configs, "rte")
    counts = adapters.summary(model)
    assert counts.to_dict()["cannot_be_merged"] == names
    assert str(counts).endswith(f"Cannot be merged: {', '.join(names)}")
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [", ".join(names) + "."]


def test_mergeable_adapters_are_not_listed(tiny_t5, caplog, linear_adapter_per_host):
    caplog.set_level("INFO", logger="adapters")
    counts = adapters.summary(adapters.attach(tiny_t5(), linear_adapter_per_host))
    assert counts.to_dict()["cannot_be_merged"] == []
    assert "merged" not in str(counts)
    assert [record for record in caplog.records if "merged" in record.getMessage()] == []


def test_summary_prints_and_is_json(tiny_t5):
    counts = adapters.summary(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2}))
    values = json.loads(json.dumps(counts.to_dict()))
    assert values["parameters"] == counts.total.parameters
    assert values["base_parameters"] == counts.base.parameters
    assert values["trainable_parameters"] == counts.total.trainable
    assert values["share"] == counts.share
    assert values["groups"]["tt_lora"]["trainable"] == counts.groups["tt_lora"].trainable
    assert values["layers"]["encoder 0"]["bytes"] == counts.layers["encoder 0"].bytes
    text = str(counts)
    for cell in ("tt_lora", "encoder 1", f"{counts.total.parameters:,}", f"{counts.share:.4%}"):
        assert cell in text
