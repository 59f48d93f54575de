r"""Patterns: ranks, shapes and scalings of single places, by the ends of their paths.

    rank_pattern     {"wi": 4, "decoder.block.0.layer.0.SelfAttention.q": [2, 4]}
    shape_pattern    {"wo": [[8, 8, 12], [12, 16, 16]]}
    scaling_pattern  {"wo": 1.5}

A key is the end of a module's path after a dot, or a regular expression for it, by PEFT's rule: it matches if
``re.match(rf"(.*\.)?({key})$", path)`` does. Every key must match some place, and keys that match the same place must
have equal values, because the keys of a JSON object have no order that could decide between them.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from adapters.validation import nearest_name

Value = TypeVar("Value", bound=Hashable)

PATTERNS = ("rank_pattern", "shape_pattern", "scaling_pattern")
"""The fields that are patterns; only a delta has a scaling."""


def pattern_value(config: Any, key: str, path: str) -> Any:
    """Return the value of the pattern ``key`` at ``path``; None if none of its keys matches.

    Raises:
        ConfigurationError: two keys that match have different values.
    """
    pattern = getattr(config, key, None) or {}
    matching = [name for name in pattern if _expression(name).match(path)]
    if not matching:
        return None
    for name in matching[1:]:
        if pattern[name] != pattern[matching[0]]:
            given = f"{matching[0]!r} and {name!r}, which both match {path}"
            config.refuse(key, "must have one value for each place", given, "make one of the two more specific")
    return pattern[matching[0]]


def check_patterns(config: Any, paths: Iterable[str]) -> None:
    """Raise ConfigurationError for a key of a pattern that matches none of the paths."""
    paths = list(paths)
    for key in PATTERNS:
        for name in getattr(config, key, None) or {}:
            if not any(_expression(name).match(path) for path in paths):
                fix = nearest_name(name, {path.rpartition(".")[2] for path in paths})
                config.refuse(key, "must have keys that match places of this adapter", repr(name), fix)


def check_expressions(config: Any) -> None:
    """Raise ConfigurationError for a key of a pattern that is not a regular expression."""
    for key in PATTERNS:
        for name in getattr(config, key, None) or {}:
            try:
                _expression(name)
            except re.error as error:
                rule = "must have keys that are ends of paths or regular expressions"
                config.refuse(key, rule, f"{name!r} ({error})", "escape characters that are meant literally")


def common_value(
    values: Mapping[str, Value], candidates: Iterable[Value], value_at: Callable[[Value, str], Any]
) -> tuple[Value, dict[str, Value]]:
    """Return the candidate with the most values, the first of equally good ones, and the pattern of the others.

    Args:
        values: by path.
        candidates: possible values of the field.
        value_at: the value at a path that a candidate gives.
    """
    others = {c: [path for path in values if value_at(c, path) != values[path]] for c in dict.fromkeys(candidates)}
    best = min(others, key=lambda candidate: len(others[candidate]))
    return best, pattern(values, others[best])


def pattern(values: Mapping[str, Value], paths: Iterable[str]) -> dict[str, Value]:
    """Return the pattern of the values of ``paths``; its key is the name of a linear if all of that name agree."""
    by_name: dict[str, set[Value]] = {}
    for path, value in values.items():
        by_name.setdefault(path.rpartition(".")[2], set()).add(value)
    names = {path: path.rpartition(".")[2] for path in paths}
    return {name if len(by_name[name]) == 1 else path: values[path] for path, name in names.items()}


@lru_cache(maxsize=4096)
def _expression(name: str) -> re.Pattern:
    return re.compile(rf"(.*\.)?({name})$")
