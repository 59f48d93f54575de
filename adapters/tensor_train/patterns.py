r"""What single places have that differs from the rest of their configuration, by the ends of their paths.

    rank_pattern     {"wi": 4, "decoder.block.0.layer.0.SelfAttention.q": [2, 4]}
    shape_pattern    {"wo": [[8, 8, 12], [12, 16, 16]]}

A key is the end of a module's path from a dot on, or a regular expression for it, by PEFT's rule: it matches where
``re.match(rf"(.*\.)?({key})$", path)`` does. Two keys that match one place say the same of it, as JSON files do not
keep an order in which the first one could win, and each key matches a place; what does otherwise is refused.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from adapters.validation import nearest_name

PATTERNS = ("rank_pattern", "shape_pattern")


def pattern_value(config: Any, key: str, path: str) -> Any:
    """What the field ``key`` says of the place at ``path``; None where no pattern matches it."""
    pattern = getattr(config, key) or {}
    matching = [name for name in pattern if _expression(name).match(path)]
    if not matching:
        return None
    for name in matching[1:]:
        if pattern[name] != pattern[matching[0]]:
            given = f"{matching[0]!r} and {name!r}, which both match {path}"
            config.refuse(key, "says one thing of each place", given, "make one of the two more exact")
    return pattern[matching[0]]


def check_patterns(config: Any, paths: Iterable[str]) -> None:
    """Refuse a key of a pattern that matches none of the paths."""
    paths = list(paths)
    for key in PATTERNS:
        for name in getattr(config, key) or {}:
            if not any(_expression(name).match(path) for path in paths):
                mend = nearest_name(name, {path.rpartition(".")[2] for path in paths})
                config.refuse(key, "has ends of paths, each of a place of this adapter", repr(name), mend)


def check_expressions(config: Any) -> None:
    """Refuse a key of a pattern that is no regular expression."""
    for key in PATTERNS:
        for name in getattr(config, key) or {}:
            try:
                _expression(name)
            except re.error as error:
                rule = "has ends of paths, or regular expressions for them"
                config.refuse(key, rule, f"{name!r} ({error})", "escape what is meant as it stands")


@lru_cache(maxsize=4096)
def _expression(name: str) -> re.Pattern:
    return re.compile(rf"(.*\.)?({name})$")
