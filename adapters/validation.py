"""Checks of what a person writes: names and types, each refused with one sentence.

A configuration is JSON, so a value is valid where strict JSON reading of its annotated type accepts it: lists become
tuples, an int may stand for a float, but neither "8" nor true stands for 8.
"""

import difflib
import json
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError


class ConfigurationError(ValueError):
    """What a person wrote is not valid: the rule, what was given and how to mend it, in one sentence."""


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, then all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known are: {', '.join(known) if known else 'none'}."


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse the first key of ``given`` that is not in ``known``, naming the nearest one that is."""
    known = list(known)
    for key in given:
        if key not in known:
            raise ConfigurationError(f"{where} has no key {key!r}: {nearest_name(key, known)}")


@cache
def _type_adapter(annotation: Any) -> TypeAdapter:
    return TypeAdapter(annotation)


def check_type(key: str, value: Any, annotation: Any, where: str) -> Any:
    """Return ``value`` as ``annotation`` wants it (lists as tuples), or refuse it by the name of its key."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"Key {key!r} of {where} takes a value that JSON can hold; "
            f"given was {value!r} of type {type(value).__name__}. Write numbers, strings, lists or null."
        ) from None
    try:
        return _type_adapter(annotation).validate_json(text, strict=True)
    except ValidationError as error:
        rules = list(dict.fromkeys(problem["msg"] for problem in error.errors()))
        raise ConfigurationError(
            f"Key {key!r} of {where} was given {value!r}, which does not fit: {'; or '.join(rules)}."
        ) from None
