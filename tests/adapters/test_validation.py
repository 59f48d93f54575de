"""Strict JSON types, unknown keys, and error messages."""

import re
from dataclasses import dataclass
from typing import Literal

import pytest

from adapters import AdapterConfig
from adapters.adaptive_ranks.schedule import RankSchedule
from adapters.validation import ConfigurationError, check_keys, check_type, from_json, nearest_name, refuse

FORM = re.compile(r"(Key '\w+' of )?\w[^;]*; got [^:]+: .*[^.]\.")
"""<rule>; got <what was given>: <fix>."""


@pytest.mark.parametrize(
    ("value", "annotation", "accepted"),
    [
        (8, int, 8),
        (8, float, 8.0),
        (0.5, float, 0.5),
        (True, bool, True),
        ("a", str, "a"),
        (None, int | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([[2, 3], [4, 5]], tuple[tuple[int, ...], tuple[int, ...]], ((2, 3), (4, 5))),
        ((1, 2), tuple[int, ...], (1, 2)),
        ("decoder", Literal["encoder", "decoder"], "decoder"),
        ({"a": 1}, dict[str, int], {"a": 1}),
    ],
)
def test_a_valid_value_is_returned_in_its_type(value, annotation, accepted):
    result = check_type("key", value, annotation, "a place")
    assert result == accepted
    assert type(result) is type(accepted)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("8", int),
        (True, int),
        (8.5, int),
        ("0.5", float),
        (False, float),
        (1, bool),
        ("true", bool),
        (8, str),
        (None, int),
        (1, tuple[int, ...]),
        ("12", tuple[int, ...]),
        (["1"], tuple[int, ...]),
        ([[2, 3]], tuple[tuple[int, ...], tuple[int, ...]]),
        ("both", Literal["encoder", "decoder"]),
        ({1}, tuple[int, ...]),
        (object, str),
    ],
)
def test_a_value_of_another_type_raises_an_error_with_its_key(value, annotation):
    with pytest.raises(ConfigurationError, match="Key 'rank' of a place") as error:
        check_type("rank", value, annotation, "a place")
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(("name", "nearest"), [("rnak", "rank"), ("scalling", "scaling"), ("drop_out", "dropout")])
def test_an_unknown_key_raises_an_error_with_the_nearest_one(name, nearest):
    with pytest.raises(ConfigurationError, match=f"{name!r}.* did you mean {nearest!r}") as error:
        check_keys(["rank", name], ["rank", "scaling", "dropout"], "this object")
    assert "'rank', 'scaling'" not in str(error.value)
    assert "dropout, rank, scaling" in str(error.value)


def test_known_keys_pass_and_a_dissimilar_name_gets_the_list_only():
    assert check_keys(["rank"], ["rank", "d"], "this object") is None
    assert "did you mean" not in nearest_name("zzzz", ["rank", "d"])
    assert "d, rank" in nearest_name("zzzz", ["rank", "d"])


@dataclass(frozen=True)
class Described:
    rank: int
    names: tuple[str, ...] = ()


def test_a_dataclass_is_read_from_json_with_its_defaults():
    assert from_json(Described, {"rank": 3}, "the thing") == Described(3)
    assert from_json(Described, {"rank": 3, "names": ["a"]}, "the thing") == Described(3, ("a",))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"names": ["a"]}, r"Key 'rank' of the thing is required; got the keys \['names'\]: add it"),
        ({"rnak": 3}, "The thing takes known keys only; got 'rnak': did you mean 'rank'"),
        ({"rank": "3"}, "Key 'rank' of the thing must have a value of its type; got '3'"),
    ],
)
def test_invalid_json_of_a_dataclass_raises_an_error(values, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        from_json(Described, values, "the thing")


@pytest.mark.parametrize("fix", ["4 or 8 is typical", "4 or 8 is typical."])
def test_refuse_states_the_rule_the_value_and_the_fix_in_one_sentence(fix):
    with pytest.raises(ConfigurationError) as error:
        refuse("rank", "must be a positive integer", 0, fix, "adapter kind 'tt_lora'")
    assert str(error.value) == (
        "Key 'rank' of adapter kind 'tt_lora' must be a positive integer; got 0: 4 or 8 is typical."
    )


@pytest.mark.parametrize(
    ("build", "start"),
    [
        (lambda: AdapterConfig.from_dict({"kind": "tt_lora", "rank": 0}), "Key 'rank' of adapter kind 'tt_lora' "),
        (lambda: AdapterConfig.from_dict({"kind": "tt_lora", "rank": "8"}), "Key 'rank' of adapter kind 'tt_lora' "),
        (lambda: AdapterConfig.from_dict({"kind": "tt_lora", "format": "tt"}), "Key 'format' of adapter kind "),
        (lambda: AdapterConfig.from_dict({"kind": "tt_lora", "rnak": 8}), "Adapter kind 'tt_lora' "),
        (lambda: RankSchedule(start=0, every=1, end=2, grow=1), "Key 'start' of the rank_schedule "),
        (lambda: RankSchedule(start=1, every=1, end=2, rel_tol=2.0), "Key 'rel_tol' of a change of ranks "),
        (lambda: RankSchedule.from_dict({"start": 1, "every": 1}), "Key 'end' of the rank_schedule "),
    ],
)
def test_every_invalid_key_gets_the_same_form_of_error(build, start):
    with pytest.raises(ConfigurationError) as error:
        build()
    assert str(error.value).startswith(start)
    assert FORM.fullmatch(str(error.value)), str(error.value)
