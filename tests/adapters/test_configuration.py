"""Configurations: valid fields, error messages, and the JSON form."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import AdapterConfig, ConfigurationError, as_configs

KINDS = (
    *("tt_lora", "tt_adapter", "tt_single", "tt_layer_norm", "scale_norm", "layer_norm", "bottleneck"),
    *("bitfit", "intrinsic_said", "prompt", "lm_head", "none"),
)
SUBLAYERS = ("self_attention", "cross_attention", "feed_forward")


def some_of(names):
    return st.lists(st.sampled_from(names), min_size=1, unique=True)


@st.composite
def tensor_train_fields(draw, vector=False):
    """JSON fields of a tensor train, with cores in any order and counted from either end."""
    d = draw(st.integers(1, 5))
    trained = draw(st.integers(0, d - 1))
    lists = draw(st.lists(st.sampled_from(["", "frozen_cores", "disabled_cores"]), min_size=d, max_size=d))
    formats = ["tensor_train", "tensor_ring", "tensor_basis", "cp", "tucker"]
    format = "tensor_train" if vector else draw(st.sampled_from(formats))
    bonds = d if format in ("tensor_ring", "tucker") else d - 1
    if format == "tucker":
        lists = [name.replace("disabled_cores", "") for name in lists]
    fields = {"rank": draw(st.integers(1, 9) | st.lists(st.integers(1, 9), min_size=bonds, max_size=bonds)), "d": d}
    for name in ("frozen_cores", "disabled_cores"):
        chosen = [k for k in range(d) if k != trained and lists[k] == name]
        fields[name] = [draw(st.sampled_from([k, k - d])) for k in chosen]
    if format == "tensor_basis":
        fields["basis_size"] = draw(st.integers(1, 9))
    else:
        fields["shared_cores"] = draw(some_of([k for k in range(d) if k == trained or lists[k] != "disabled_cores"]))
        fields["share_across"] = draw(some_of(["layers", "sublayers"]))
    if not vector:
        fields["format"] = format
    factors = st.lists(st.integers(1, 9), min_size=d, max_size=d)
    if vector:
        return fields | {"init": "ones", "raw_shape": draw(st.none() | factors)}
    orders = ["ascending", "descending", "mixed", "reversed_out"]
    modes = draw(st.none() | st.lists(st.sampled_from(["out_in", "in", "out"]), min_size=d, max_size=d))
    carried = [[mode in (side, "out_in") for mode in modes or ["out_in"] * d] for side in ("out", "in")]
    if modes is None or not all(map(any, carried)):
        modes, carried = None, [[True] * d] * 2
        orders += ["in_only", "out_only", "cheapest"]
    sides = [[n if carries else 1 for n, carries in zip(draw(factors), side, strict=True)] for side in carried]
    mode = st.fixed_dictionaries({"shape_mode": st.sampled_from(orders)})
    ranks = st.dictionaries(st.sampled_from(["wi", r".*\.q", "encoder.*"]), st.integers(1, 9))
    inits = ["glorot", "he", "lecun"] + ["identity", "orthogonal"] * (format == "tensor_train")
    return (
        fields
        | draw(st.just({"raw_shape": sides}) | mode)
        | {
            "modes": modes,
            "zero_core": draw(st.sampled_from([None, trained])),
            "rank_pattern": draw(st.none() | ranks),
            "shape_pattern": draw(st.sampled_from([None, {"wo": [[4, 6], [3, 8]]}])),
            "init": draw(st.sampled_from(inits) | st.floats(1e-3, 2)),
            "core_activation": draw(st.sampled_from([None, "relu", "gelu", "silu", "tanh"])) if d > 1 else None,
            "delta_bias": draw(st.sampled_from(["none", "dense", "tt"])),
        }
    )


@st.composite
def descriptions(draw):
    """A valid adapter of any kind, as a user could write it."""
    kind = draw(st.sampled_from(KINDS))
    if kind in ("none", "lm_head"):
        return {"kind": kind}
    if kind == "prompt":
        init = draw(st.sampled_from(["vocabulary", "random"]))
        return {"kind": kind, "num_tokens": draw(st.integers(1, 200)), "init": init}
    places = {"stacks": draw(some_of(("encoder", "decoder")))}
    places["layers"] = draw(st.none() | st.lists(st.integers(0, 11), min_size=1))
    places["sublayers"] = draw(some_of((*SUBLAYERS, "final") if "norm" in kind else SUBLAYERS))
    values = {"kind": kind, **places}
    if kind.startswith("tt_"):
        values |= draw(tensor_train_fields(vector=kind == "tt_layer_norm"))
    if kind in ("tt_lora", "tt_single"):
        values |= {"scaling": draw(st.floats(-4, 4)), "dropout": draw(st.floats(0, 0.9))}
    if kind == "tt_lora":
        values["target_modules"] = draw(st.none() | some_of(("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo")))
    if kind in ("tt_adapter", "bottleneck"):
        values[draw(st.sampled_from(["reduction_factor", "expansion_factor"]))] = draw(st.integers(1, 64))
        values["activation"] = draw(st.sampled_from(["gelu_new", "relu", "silu"]))
    if kind == "layer_norm":
        values["trainable"] = draw(st.booleans())
    if kind == "bitfit":
        values["lm_head"] = draw(st.booleans())
    if kind == "intrinsic_said":
        values |= {"dim": draw(st.integers(2, 10**6)), "projection_seed": draw(st.integers(0, 2**32 - 1))}
    return values


@given(descriptions())
def test_the_json_form_holds_the_given_values_and_restores_the_configuration(values):
    config = AdapterConfig.from_dict(values)
    written = config.to_dict()
    assert AdapterConfig.from_dict(written) == config
    assert AdapterConfig.from_dict(json.loads(json.dumps(written))) == config
    for key, value in values.items():
        if key.endswith("_cores"):
            value = sorted({core % values["d"] for core in value})
        assert written[key] == value


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_frozen_configuration_of_defaults(kind):
    config = AdapterConfig.from_dict({"kind": kind})
    assert config.kind == kind
    assert config == type(config)()
    assert hash(config) == hash(type(config)())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.layers = (0,)


def test_from_dict_does_not_change_the_dictionary():
    values = {"kind": "tt_lora", "rank": 4}
    AdapterConfig.from_dict(values)
    assert values == {"kind": "tt_lora", "rank": 4}


def test_as_configs_accepts_one_or_several_configurations_or_dictionaries():
    values = {"kind": "tt_lora", "rank": 4}
    config = AdapterConfig.from_dict(values)
    for given_form in (values, config, [values], [config], (values,)):
        assert as_configs(given_form) == [config]
    assert as_configs([values, {"kind": "layer_norm"}])[1] == AdapterConfig.from_dict({"kind": "layer_norm"})


@pytest.mark.parametrize(
    ("fields", "zero_core"),
    [
        ({}, 2),
        ({"d": 1}, 0),
        ({"d": 4, "frozen_cores": [3]}, 2),
        ({"d": 4, "frozen_cores": [-1], "disabled_cores": [2]}, 1),
        ({"d": 2, "disabled_cores": [1]}, 0),
        ({"shared_cores": [2]}, 2),
        ({"shared_cores": [2], "share_across": ["layers", "tasks"]}, 1),
        ({"format": "tensor_basis", "share_across": ["tasks"]}, 2),
    ],
)
def test_the_last_trainable_core_that_tasks_do_not_share_starts_at_zero(fields, zero_core):
    assert AdapterConfig.from_dict({"kind": "tt_lora", **fields}).core_at_zero == zero_core


def test_raw_shape_determines_the_number_of_cores():
    config = AdapterConfig.from_dict({"kind": "tt_lora", "raw_shape": [[6, 8], [4, 6]], "frozen_cores": [-1]})
    assert (config.d, config.frozen_cores) == (2, (1,))


INVALID = [
    # adapter, parts of the message
    ({"kind": "tt_lorra"}, ["'kind'", "'tt_lorra'", "'tt_lora'"]),
    ({"kind": ["tt_lora"]}, ["'kind'", "['tt_lora']"]),
    ({"rank": 4}, ["'kind'", "None: known are"]),
    ({"kind": None}, ["'kind'", "None: known are"]),
    ("tt_lora", ["'kind'", "'tt_lora'"]),
    (7, ["'kind'", "7"]),
    ({"kind": "tt_lora", "rnak": 4}, ["'rnak'", "'rank'"]),
    ({"kind": "bottleneck", "rank": 4}, ["'rank'"]),
    ({"kind": "scale_norm", "trainable": True}, ["'trainable'"]),
    ({"kind": "tt_lora", "rank": "8"}, ["'rank'", "'8'"]),
    ({"kind": "tt_lora", "rank": True}, ["'rank'", "True"]),
    ({"kind": "tt_lora", "rank": 8.5}, ["'rank'", "8.5"]),
    ({"kind": "tt_lora", "rank": 0}, ["'rank'", "0"]),
    ({"kind": "tt_lora", "rank": [4, 4, 4]}, ["'rank'", "[4, 4, 4]", "2"]),
    ({"kind": "tt_lora", "format": "tucker", "rank": [3, 4]}, ["'rank'", "3 ranks (r_1, r_2, r_3)", "[3, 4]"]),
    ({"kind": "tt_lora", "format": "tensor_ring", "rank": [3, 4]}, ["'rank'", "3 ranks (r_0, r_1, r_2)", "[3, 4]"]),
    ({"kind": "tt_lora", "rank": [4, -1]}, ["'rank'", "[4, -1]"]),
    ({"kind": "tt_lora", "d": 0}, ["'d'", "0"]),
    ({"kind": "tt_lora", "d": "3"}, ["'d'", "'3'"]),
    ({"kind": "tt_lora", "d": 3, "raw_shape": [[4, 4], [2, 4]]}, ["'d'", "3", "raw_shape"]),
    ({"kind": "tt_lora", "shape_mode": "mixed", "raw_shape": [[4, 4], [2, 4]]}, ["'shape_mode'", "mixed", "raw_shape"]),
    ({"kind": "tt_lora", "d": 1, "core_activation": "relu"}, ["'core_activation'", "relu", "d=1"]),
    ({"kind": "tt_layer_norm", "d": 2, "raw_shape": [4, 2, 4]}, ["'d'", "2", "raw_shape"]),
    ({"kind": "tt_lora", "raw_shape": [[2, 3], [4]]}, ["'raw_shape'", "[[2, 3], [4]]"]),
    ({"kind": "tt_lora", "raw_shape": [[], []]}, ["'raw_shape'", "[[], []]"]),
    ({"kind": "tt_lora", "raw_shape": [[2, 0], [1, 1]]}, ["'raw_shape'", "[[2, 0], [1, 1]]"]),
    ({"kind": "tt_lora", "raw_shape": [2, 3]}, ["'raw_shape'", "[2, 3]"]),
    ({"kind": "tt_lora", "shape_mode": "ascendig"}, ["'shape_mode'", "'ascendig'", "'ascending'"]),
    ({"kind": "tt_lora", "init": "xavier"}, ["'init'", "'xavier'", "'glorot'"]),
    ({"kind": "tt_lora", "init": 0.0}, ["'init'", "0.0"]),
    ({"kind": "tt_lora", "init": -0.1}, ["'init'", "-0.1"]),
    ({"kind": "tt_lora", "init": math.inf}, ["'init'", "inf"]),
    ({"kind": "tt_lora", "init": math.nan}, ["'init'", "nan"]),
    ({"kind": "tt_lora", "init": "identity", "format": "cp"}, ["'init'", "'identity'", "'cp'"]),
    ({"kind": "tt_lora", "init": "identity", "format": "tensor_ring"}, ["'init'", "'identity'", "'tensor_ring'"]),
    ({"kind": "tt_single", "init": "orthogonal", "format": "tensor_ring"}, ["'init'", "'orthogonal'", "tensor_ring"]),
    ({"kind": "tt_lora", "format": "tucker", "disabled_cores": [1]}, ["'disabled_cores'", "tucker"]),
    ({"kind": "tt_lora", "format": "tensor_strain"}, ["'format'", "'tensor_strain'", "'tensor_train'"]),
    ({"kind": "tt_lora", "frozen_cores": [3]}, ["'frozen_cores'", "3"]),
    ({"kind": "tt_lora", "disabled_cores": [-4]}, ["'disabled_cores'", "-4"]),
    ({"kind": "tt_lora", "shared_cores": [9]}, ["'shared_cores'", "9"]),
    ({"kind": "tt_lora", "frozen_cores": 1}, ["'frozen_cores'", "1"]),
    ({"kind": "tt_lora", "frozen_cores": [1], "disabled_cores": [1]}, ["'disabled_cores'", "1"]),
    ({"kind": "tt_lora", "shared_cores": [1], "disabled_cores": [-2]}, ["'disabled_cores'", "1"]),
    ({"kind": "tt_lora", "frozen_cores": [0, 1], "disabled_cores": [2]}, ["'frozen_cores'", "[0, 1]"]),
    ({"kind": "tt_lora", "core_activation": "swish"}, ["'core_activation'", "'swish'", "'silu'"]),
    ({"kind": "tt_lora", "delta_bias": True}, ["'delta_bias'", "True", "'dense'"]),
    ({"kind": "tt_lora", "scaling": math.nan}, ["'scaling'", "nan"]),
    ({"kind": "tt_single", "scaling": math.inf}, ["'scaling'", "inf"]),
    ({"kind": "tt_lora", "dropout": 1.0}, ["'dropout'", "1.0"]),
    ({"kind": "tt_single", "dropout": -0.1}, ["'dropout'", "-0.1"]),
    ({"kind": "tt_lora", "dropout": math.nan}, ["'dropout'", "nan"]),
    ({"kind": "tt_lora", "target_modules": []}, ["'target_modules'"]),
    ({"kind": "tt_lora", "target_modules": "(wi"}, ["'target_modules'", "'(wi'", "regular expression"]),
    ({"kind": "tt_lora", "stacks": []}, ["'stacks'"]),
    ({"kind": "tt_lora", "stacks": ["encoders"]}, ["'stacks'", "'encoder'"]),
    ({"kind": "tt_lora", "sublayers": ["final"]}, ["'sublayers'", "'feed_forward'"]),
    ({"kind": "tt_single", "sublayers": []}, ["'sublayers'"]),
    ({"kind": "tt_lora", "layers": []}, ["'layers'", "[]"]),
    ({"kind": "tt_lora", "layers": [-1]}, ["'layers'", "[-1]"]),
    ({"kind": "tt_lora", "layers": [0.5]}, ["'layers'", "[0.5]"]),
    ({"kind": "tt_lora", "layers": {0}}, ["'layers'", "{0}"]),
    ({"kind": "bottleneck", "reduction_factor": 0}, ["'reduction_factor'", "0"]),
    ({"kind": "bottleneck", "expansion_factor": -2}, ["'expansion_factor'", "-2"]),
    ({"kind": "tt_adapter", "reduction_factor": 2, "expansion_factor": 2}, ["'reduction_factor'", "expansion_factor"]),
    ({"kind": "bottleneck", "activation": "gelu_neu"}, ["'activation'", "'gelu_neu'", "gelu_new"]),
    ({"kind": "layer_norm", "trainable": "no"}, ["'trainable'", "'no'"]),
    ({"kind": "tt_layer_norm", "init": "glorot"}, ["'init'", "'glorot'", "'ones'"]),
    ({"kind": "tt_layer_norm", "raw_shape": []}, ["'raw_shape'", "[]"]),
    ({"kind": "tt_layer_norm", "raw_shape": [-2, -12]}, ["'raw_shape'", "[-2, -12]"]),
    ({"kind": "tt_layer_norm", "frozen_cores": [0, 1, 2]}, ["'frozen_cores'", "[0, 1, 2]"]),
    ({"kind": "tt_layer_norm", "disabled_cores": [0]}, ["'disabled_cores'", "pretrained", "ones"]),
    ({"kind": "tt_layer_norm", "shared_cores": [0]}, ["'shared_cores'", "pretrained", "ones"]),
    ({"kind": "none", "layers": [0]}, ["'layers'", "[0]"]),
    ({"kind": "none", "stacks": ["encoder"]}, ["'stacks'", "['encoder']"]),
]


@pytest.mark.parametrize(("values", "named"), INVALID, ids=lambda value: str(value)[:60])
def test_an_error_is_one_sentence_with_the_key_the_value_and_the_fix(values, named):
    with pytest.raises(ConfigurationError) as error:
        AdapterConfig.from_dict(values)
    message = str(error.value)
    for name in named:
        assert name in message
    assert message[0].isupper()
    assert message.endswith(".")
    assert "\n" not in message
