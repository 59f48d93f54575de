"""rank_pattern and shape_pattern: the places that they match, the layers built there, and their errors."""

import json
import re

import pytest
import torch

import adapters
from adapters import AdapterConfig, ConfigurationError

ENCODER_0 = "encoder.block.0.layer.1.DenseReluDense"


def layers(model):
    """The TT layers by path."""
    found = {}
    for path, module in model.named_modules():
        if beside := getattr(module, "beside", None):
            found[path] = beside["tt_lora"].active.linear
    return found


PATTERNS = [
    # rank_pattern, ranks by a regular expression for paths; all other places have rank 2
    ({"wi": 3}, {r".*\.wi": (1, 3, 3, 1)}),
    ({"wi": [1, 4]}, {r".*\.wi": (1, 1, 4, 1)}),
    ({f"{ENCODER_0}.wo": 3}, {re.escape(f"{ENCODER_0}.wo"): (1, 3, 3, 1)}),
    ({r"encoder\.block\.\d+\.layer\.1\..*": 1}, {r"encoder\..*": (1, 1, 1, 1)}),
    ({"block.1.layer.*": 1, f"{ENCODER_0}.wi": 3}, {r".*block\.1\..*": (1, 1, 1, 1), f"{ENCODER_0}.wi": (1, 3, 3, 1)}),
    ({"DenseReluDense.wi": 3, "wi": 3}, {r".*\.wi": (1, 3, 3, 1)}),
    ({}, {}),
]


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS, ids=str)
def test_a_rank_pattern_sets_the_ranks_of_matching_places_only(tiny_t5, logits, pattern, expected):
    description = {"kind": "tt_lora", "rank": 2, "shape_mode": "ascending", "rank_pattern": pattern}
    model = adapters.attach(tiny_t5(), description)
    assert len(layers(model)) == 8
    for path, layer in layers(model).items():
        ranks = next((ranks for name, ranks in expected.items() if re.fullmatch(name, path)), (1, 2, 2, 1))
        assert layer.ranks == ranks, path
    assert torch.equal(logits(model), logits(tiny_t5()))


@pytest.mark.parametrize("pattern", [{"wi": 3}, {f"{ENCODER_0}.wo": 1, r".*\.wi": [2, 4]}], ids=str)
def test_ranks_of_places_do_not_change_the_cheapest_shape(tiny_t5, pattern):
    """They are chosen for the general rank."""
    plain = layers(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2}))
    other = layers(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, "rank_pattern": pattern}))
    assert {path: layer.raw_shape for path, layer in plain.items()} == {p: ly.raw_shape for p, ly in other.items()}
    assert any(layer.ranks != other[path].ranks for path, layer in plain.items())


def test_shapes_of_places_can_have_another_number_of_cores(tiny_t5):
    patterns = {"shape_pattern": {"wo": [[4, 6], [6, 8]]}, "rank_pattern": {"wo": [5]}}
    model = adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, "shape_mode": "ascending", **patterns})
    for path, layer in layers(model).items():
        expected = (((4, 6), (6, 8)), (1, 5, 1)) if path.endswith("wo") else (((3, 4, 4), (2, 3, 4)), (1, 2, 2, 1))
        assert (layer.raw_shape, layer.ranks) == expected


def test_shapes_of_places_with_equally_many_cores_keep_the_named_cores(tiny_t5):
    fields = {
        "shape_mode": "ascending",
        "shape_pattern": {"wo": [[2, 3, 4], [3, 4, 4]]},
        "frozen_cores": [-3],
        "zero_core": -2,
    }
    for layer in layers(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, **fields})).values():
        assert (layer.frozen_cores, layer.zero_core) == ((0,), 1)


def test_a_bottleneck_is_matched_by_the_linear_before_it(tiny_t5):
    description = {"kind": "tt_adapter", "rank": 2, "reduction_factor": 4, "rank_pattern": {"wo": 1}}
    model = adapters.attach(tiny_t5(), description)
    for path, module in model.named_modules():
        if after := getattr(module, "after", None):
            adapter = after["tt_adapter"].active
            expected = 1 if path.endswith("wo") else 2
            assert max(adapter.down.ranks) == max(adapter.up.ranks) == expected


@pytest.mark.parametrize("pattern", [{"wo": 1}, {"wo": 1, ".*[.]o": 3}], ids=str)
def test_ranks_of_places_do_not_change_the_cheapest_shapes_of_a_bottleneck(tiny_t5, logits, pattern):
    shapes = []
    for patterns in ({}, {"rank_pattern": pattern}):
        description = {"kind": "tt_adapter", "rank": 2, "reduction_factor": 4, "shape_mode": "cheapest", **patterns}
        model = adapters.attach(tiny_t5(), description)
        assert torch.equal(logits(model), logits(tiny_t5()))
        found = [module.after["tt_adapter"].active for module in model.modules() if getattr(module, "after", None)]
        shapes.append([(adapter.down.raw_shape, adapter.up.raw_shape) for adapter in found])
    assert len(shapes[0]) == 8
    assert shapes[0] == shapes[1]


def test_modes_apply_to_shapes_of_places(tiny_t5):
    description = {"kind": "tt_lora", "rank": 2, "modes": ["in", "out"], "raw_shape": [[1, 48], [24, 1]]}
    model = adapters.attach(tiny_t5(), {**description, "shape_pattern": {"wo": [[1, 24], [48, 1]]}})
    sizes = {path.rpartition(".")[2]: layer.raw_shape for path, layer in layers(model).items()}
    assert sizes == {"wi": ((1, 48), (24, 1)), "wo": ((1, 24), (48, 1))}
    with pytest.raises(ConfigurationError, match=r"wo.*shape_pattern.*'raw_shape'.*48 for core 0"):
        adapters.attach(tiny_t5(), {**description, "shape_pattern": {"wo": [[48, 1], [1, 24]]}})


def test_patterns_are_saved_and_loaded(tiny_t5, trained, logits, tmp_path):
    patterns = {
        "rank_pattern": {"wi": [1, 4], "block.1.layer.1.*wo": 3},
        "shape_pattern": {"wi": [[3, 4, 4], [4, 3, 2]]},
    }
    model = trained(adapters.attach(tiny_t5(), {"kind": "tt_lora", "rank": 2, **patterns}))
    adapters.save(model, tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())["adapters"][0]["config"]
    assert {key: written[key] for key in patterns} == patterns
    loaded = adapters.load(tiny_t5(), tmp_path)
    assert adapters.attachments(loaded) == adapters.attachments(model)
    assert torch.equal(logits(loaded), logits(model))


def test_the_configuration_of_a_place_equals_one_without_patterns():
    config = AdapterConfig.from_dict({"kind": "tt_lora", "rank": 2, "rank_pattern": {"wi": 3}})
    assert config.at("block.0.wi") == AdapterConfig.from_dict({"kind": "tt_lora", "rank": 3, "shape_mode": "cheapest"})
    assert config.at("block.0.wo") is config


def test_configurations_with_different_patterns_are_hashable_and_not_equal():
    plain, other = (AdapterConfig.from_dict({"kind": "tt_lora", "rank_pattern": p}) for p in (None, {"wi": 2}))
    assert plain != other
    assert len({plain, other}) == 2


INVALID = [
    ({"rank_pattern": {"wi": 0}}, ["'rank_pattern'", "0"]),
    ({"rank_pattern": {"wi": [2, -1]}}, ["'rank_pattern'", "[2, -1]"]),
    ({"rank_pattern": {"wi": "8"}}, ["'rank_pattern'", "'8'"]),
    ({"rank_pattern": ["wi"]}, ["'rank_pattern'", "['wi']"]),
    ({"rank_pattern": {"wi(": 2}}, ["'rank_pattern'", "'wi('"]),
    ({"shape_pattern": {"wi": [[6, 8], [24]]}}, ["'shape_pattern'", "[[6, 8], [24]]"]),
    ({"rank_pattern": {"wj": 2}}, ["'rank_pattern'", "'wj'", "wi"]),
    ({"shape_pattern": {"q": [[4, 6], [4, 6]]}}, ["'shape_pattern'", "'q'"]),
    ({"rank_pattern": {"i": 2}}, ["'rank_pattern'", "'i'"]),
    ({"rank_pattern": {"w": 2}}, ["'rank_pattern'", "'w'"]),
    ({"rank_pattern": {"wi": 2, "encoder.*": 3}}, ["'rank_pattern'", "'wi'", "'encoder.*'", f"{ENCODER_0}.wi"]),
    ({"rank_pattern": {"wi": [2]}}, ["'rank'", "[2]", f"{ENCODER_0}.wi"]),
    ({"shape_pattern": {"wi": [[6, 8], [4, 4]]}}, ["'raw_shape'", "[4, 4]"]),
    *(
        (
            {"shape_pattern": {"wi": [[6, 8], [4, 6]]}, key: cores},
            ["'shape_pattern'", key, f"2 cores at {ENCODER_0}.wi", "3"],
        )
        for key, cores in (("frozen_cores", [2]), ("frozen_cores", [-1]), ("disabled_cores", [0]), ("zero_core", -2))
    ),
    ({"rank_pattern": {"encoder.*wi": 3}, "shared_cores": [0]}, ["'shared_cores'"]),
]


@pytest.mark.parametrize(("fields", "named"), INVALID, ids=str)
def test_invalid_patterns_raise_an_error_and_leave_the_model_unchanged(tiny_t5, snapshot, fields, named):
    model = tiny_t5()
    before = snapshot(model)
    with pytest.raises(ConfigurationError) as error:
        adapters.attach(model, {"kind": "tt_lora", "rank": 2, **fields})
    for name in named:
        assert name in str(error.value)
    assert snapshot(model) == before
