"""Validation of user input: keys, names and types, and the one form of error message.

    Key 'rank' of adapter kind 'tt_lora' must be a positive integer; got 0: 4 or 8 is typical.
        key       where                  rule                            given   fix

Configurations are JSON, so a value is valid if strict JSON parsing of its annotated type accepts it: lists become
tuples and an int may stand for a float, but neither "8" nor true stands for 8.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, NoReturn, get_type_hints

from pydantic import TypeAdapter, ValidationError

MAX_LISTED = 32
"""The largest number of known names that a message lists in full."""


class ConfigurationError(ValueError):
    """Invalid user input: the rule, what was given and how to fix it, in one sentence."""


def refuse(key: str, rule: str, given: Any, fix: str, where: str) -> NoReturn:
    """Raise the error of one key: "Key 'rank' of adapter kind 'tt_lora' <rule>; got <given>: <fix>."

    Args:
        key: the name that the user wrote, or should have written.
        rule: what its value must satisfy, a verb first: "must be a positive integer".
        given: the value, as it appears in the message.
        fix: what to write instead; ``nearest_name`` returns one for unknown names.
        where: what the key belongs to: "adapter kind 'tt_lora'".
    """
    raise ConfigurationError(f"Key {key!r} of {where} {rule}; got {given}: {fix.removesuffix('.')}.")


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Suggest a fix for an unknown name, a full sentence: the nearest known names, and all of them if they are few."""
    known = sorted(str(other) for other in known)
    lower = {other.lower(): other for other in known}
    near = [lower[match] for match in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(map(repr, near[:1] if len(known) <= MAX_LISTED else near))}?" if near else ""
    listed = f"known are {', '.join(known) or 'none'}" if len(known) <= MAX_LISTED else f"{len(known)} names are known"
    return f"{hint} {listed[0].upper() if near else listed[0]}{listed[1:]}.".strip()


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise ConfigurationError for the first key of ``given`` that is not in ``known``, with the nearest known one."""
    known = list(known)
    for key in given:
        if key not in known:
            raise ConfigurationError(
                f"{where[0].upper()}{where[1:]} takes known keys only; got {key!r}: {nearest_name(key, known)}"
            )


@cache
def _type_adapter(annotation: Any) -> TypeAdapter:
    return TypeAdapter(annotation)


def from_json(cls: type, values: dict[str, Any], where: str) -> Any:
    """Build a dataclass from its JSON form, with its own defaults for missing keys.

    Raises:
        ConfigurationError: a key is unknown or missing, or a value is not of its type.
    """
    types = get_type_hints(cls)
    check_keys(values, types, where)
    for field in fields(cls):
        if field.name not in values and field.default is field.default_factory is MISSING:
            refuse(field.name, "is required", f"the keys {sorted(values)}", "add it", where)
    return cls(**{key: check_type(key, value, types[key], where) for key, value in values.items()})


def check_type(key: str, value: Any, annotation: Any, where: str) -> Any:
    """Return ``value`` in the type of ``annotation`` (lists as tuples).

    Raises:
        ConfigurationError: ``value`` is not of that type, or is not a JSON value.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        text = None
    if text is None:
        given = f"{value!r} of type {type(value).__name__}"
        refuse(key, "must be a JSON value", given, "write numbers, strings, lists or null", where)
    try:
        return _type_adapter(annotation).validate_json(text, strict=True)
    except ValidationError as error:
        rules = dict.fromkeys(problem["msg"].removeprefix("Input ") for problem in error.errors())
    refuse(key, "must have a value of its type", repr(value), f"it {', or '.join(rules)}", where)
