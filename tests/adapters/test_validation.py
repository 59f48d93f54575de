"""Strict JSON types, unknown keys, and the sentences about them."""

from dataclasses import dataclass
from typing import Literal

import pytest

from adapters.validation import ConfigurationError, check_keys, check_type, from_json, nearest_name


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
def test_a_value_of_its_type_is_returned_in_it(value, annotation, accepted):
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
def test_a_value_of_another_type_is_refused_by_its_key(value, annotation):
    with pytest.raises(ConfigurationError, match="Key 'rank' of a place") as refusal:
        check_type("rank", value, annotation, "a place")
    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize(("name", "nearest"), [("rnak", "rank"), ("scalling", "scaling"), ("drop_out", "dropout")])
def test_an_unknown_key_is_refused_with_the_nearest_one(name, nearest):
    with pytest.raises(ConfigurationError, match=f"{name!r}.* did you mean {nearest!r}") as refusal:
        check_keys(["rank", name], ["rank", "scaling", "dropout"], "this object")
    assert "'rank', 'scaling'" not in str(refusal.value)
    assert "dropout, rank, scaling" in str(refusal.value)


def test_known_keys_pass_and_a_name_like_no_other_gets_the_list_alone():
    assert check_keys(["rank"], ["rank", "d"], "this object") is None
    assert "did you mean" not in nearest_name("zzzz", ["rank", "d"])
    assert "d, rank" in nearest_name("zzzz", ["rank", "d"])


@dataclass(frozen=True)
class Described:
    rank: int
    names: tuple[str, ...] = ()


def test_a_dataclass_is_read_from_json_with_its_own_defaults():
    assert from_json(Described, {"rank": 3}, "the thing") == Described(3)
    assert from_json(Described, {"rank": 3, "names": ["a"]}, "the thing") == Described(3, ("a",))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"names": ["a"]}, r"The thing has a key 'rank'; got \['names'\]: add it"),
        ({"rnak": 3}, "The thing has no key 'rnak': did you mean 'rank'"),
        ({"rank": "3"}, "Key 'rank' of the thing has a value of its type; got '3'"),
    ],
)
def test_a_dataclass_from_json_that_does_not_fit_is_refused(values, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        from_json(Described, values, "the thing")
