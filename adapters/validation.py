"""Checks of what a person writes: names and types, each refused with one sentence.

A configuration is JSON, so a value is valid where strict JSON reading of its annotated type accepts it: lists become
tuples, an int may stand for a float, but neither "8" nor true stands for 8.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

FEW = 32
"""So many names are still read by a person."""


class ConfigurationError(ValueError):
    """What a person wrote is not valid: the rule, what was given and how to mend it, in one sentence."""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, and all of them where they are few."""
    known = sorted(str(other) for other in known)
    lower = {other.lower(): other for other in known}
    near = [lower[match] for match in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(map(repr, near[:1] if len(known) <= FEW else near))}?" if near else ""
    listed = f"known are {', '.join(known)}" if len(known) <= FEW else f"{len(known)} names are known"
    return f"{hint} {listed[0].upper() if near else listed[0]}{listed[1:]}.".strip()


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse the first key of ``given`` that is not in ``known``, naming the nearest one that is."""
    known = list(known)
    for key in given:
        if key not in known:
            raise ConfigurationError(f"{where[0].upper()}{where[1:]} has no key {key!r}: {nearest_name(key, known)}")


@cache
def _type_adapter(annotation: Any) -> TypeAdapter:
    return TypeAdapter(annotation)


def from_json(cls: type, values: dict[str, Any], where: str) -> Any:
    """A dataclass from its JSON form; defaults are its own.

    Raises:
        ConfigurationError: a key is unknown or missing, or a value is not of its type.
    """
    types = get_type_hints(cls)
    check_keys(values, types, where)
    for field in fields(cls):
        if field.name not in values and field.default is field.default_factory is MISSING:
            raise ConfigurationError(
                f"{where[0].upper()}{where[1:]} has a key {field.name!r}; got {sorted(values)}: add it."
            )
    return cls(**{key: check_type(key, value, types[key], where) for key, value in values.items()})


def check_type(key: str, value: Any, annotation: Any, where: str) -> Any:
    """Return ``value`` as ``annotation`` wants it (lists as tuples), or refuse it by the name of its key."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"Key {key!r} of {where} takes a value that JSON can hold; "
            f"got {value!r} of type {type(value).__name__}. Write numbers, strings, lists or null."
        ) from None
    try:
        return _type_adapter(annotation).validate_json(text, strict=True)
    except ValidationError as error:
        rules = dict.fromkeys(problem["msg"].removeprefix("Input ") for problem in error.errors())
        raise ConfigurationError(
            f"Key {key!r} of {where} has a value of its type; got {value!r}: it {', or '.join(rules)}."
        ) from None
