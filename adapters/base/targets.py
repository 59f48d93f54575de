"""Which linears ``target_modules`` and ``exclude_modules`` name.

    "query"             linears by the end of their path
    "q"                 linears by their role, in known architectures, see ``adapters.base.layout``
    "all-linear"        given as a string: every linear but the output projection and the head of a classifier
    r".*\\.[01]\\..*"     any other string: a regular expression for whole paths

The rules for paths are PEFT's.
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from adapters.base.layout import ROLES
from adapters.base.sublayers import OTHER, Sublayer, check_layers, select_sublayers
from adapters.validation import nearest_name

Targets = tuple[str, ...] | str
ALL_LINEAR = "all-linear"
"""PEFT's name of all linears."""


def candidates(config: Any, sublayers: list[Sublayer]) -> list[tuple[Sublayer, str]]:
    """The linears that a configuration can name: the sublayer and the name of each.

    They are those of the chosen sublayers and, unless stacks or sublayers are chosen, those outside of all sublayers.
    """
    known = [sublayer for sublayer in sublayers if sublayer.kind != OTHER]
    others = []
    if all(getattr(config, key) == getattr(type(config), key, None) for key in ("stacks", "sublayers")):
        others = [sublayer for sublayer in sublayers if sublayer.kind == OTHER]
        if not known:
            check_layers(config, others)
    chosen = select_sublayers(config, sublayers) if known else []
    chosen += [sublayer for sublayer in others if config.layers is None or sublayer.layer in config.layers]
    # the output projection's weight may be tied to the embedding
    return [(sublayer, name) for sublayer in chosen if sublayer.kind != "final" for name in sublayer.linears]


def is_all_linear(targets: Any) -> bool:
    return isinstance(targets, str) and targets.lower() == ALL_LINEAR


def check_targets(config: Any, key: str, targets: Targets | None) -> None:
    """Check what can be checked without a model.

    Raises:
        ConfigurationError: a string that is no regular expression.
    """
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            rule = "as a string must be a regular expression for whole paths"
            config.refuse(key, rule, f"{targets!r} ({error})", "correct it, or write a list of names")


def matching(config: Any, key: str, targets: Targets, linears: list[tuple[Sublayer, str]]) -> set[str]:
    """The paths that ``targets`` name among these linears.

    Raises:
        ConfigurationError: a name or the expression names none.
    """
    paths = [sublayer.linears[name] for sublayer, name in linears]
    if is_all_linear(targets):
        return set(paths)
    if isinstance(targets, str):
        found = {path for path in paths if re.fullmatch(targets, path)}
        if not found:
            example = paths[0] if paths else "none"
            rule = f"as a string is a pattern for whole paths such as {example}"
            fix = "write a list of names, or a pattern that matches some"
            config.refuse(key, rule, f"{targets!r}, which matches none", fix)
        return found
    found = set()
    for target in targets:
        named = named_by(target, linears)
        if not named:
            rule = f"names linears of the sublayers {', '.join(config.sublayers)}"
            config.refuse(key, rule, repr(target), nearest_target(target, linears))
        found |= named
    return found


def named_by(target: str, linears: list[tuple[Sublayer, str]]) -> set[str]:
    """The paths of the linears with this end of a path, or of this role."""
    return {
        sublayer.linears[name]
        for sublayer, name in linears
        if ends_with(sublayer.linears[name], target) or sublayer.roles.get(name) == target
    }


def ends_with(path: str, end: str) -> bool:
    """Whether a path is, or after a dot ends with, ``end``."""
    return f".{path}".endswith(f".{end}")


def names_of(paths: Collection[str], named: Callable[[str], set[str]]) -> list[str] | str:
    """``target_modules`` that name these paths and no others: the shortest ends that do, else a regular expression.

    Args:
        paths: of the linears to be named.
        named: gives the paths that an end names, see ``named_by``.
    """
    ends = []
    for path in sorted(paths):
        parts = path.split(".")
        end = next((e for k in range(1, len(parts) + 1) if named(e := ".".join(parts[-k:])) <= set(paths)), None)
        if end is None:  # the whole path is the end of another one too
            return "|".join(map(re.escape, sorted(paths)))
        ends.append(end)
    return sorted(set(ends))


def targets_of(config: Any, sublayers: list[Sublayer], paths: Collection[str]) -> list[str] | str:
    """``target_modules`` of a configuration, for all sublayers, that name exactly the linears at ``paths``.

    Raises:
        ConfigurationError: one of them is none that a configuration can name.
    """
    linears = candidates(config, sublayers)
    if others := sorted({*paths} - {sublayer.linears[name] for sublayer, name in linears}):
        rule = "names linears of the model, but for its output projection and head"
        config.refuse("target_modules", rule, others[0], "leave it out")
    return names_of(paths, partial(named_by, linears=linears))


def roles_as_paths(targets: Collection[str], sublayers: list[Sublayer], paths: Collection[str]) -> list[str]:
    """``targets`` with each role replaced by the paths of its linears, if no path ends with that name."""
    replaced: list[str] = []
    for target in targets:
        if target in ROLES and not any(ends_with(path, target) for path in paths):
            of_role = [s.linears[name] for s in sublayers for name, role in s.roles.items() if role == target]
            replaced += of_role or [target]
        else:
            replaced.append(target)
    return replaced


def nearest_target(target: str, linears: list[tuple[Sublayer, str]]) -> str:
    """The nearest name; for a role, what the model has instead, such as one linear for q, k and v."""
    roles = {role: sublayer.linears[name] for sublayer, name in linears for role in [sublayer.roles.get(name)] if role}
    fused = next((role for role in ("qkv", "gate_in") if role in roles and target in (*role, *role.split("_"))), None)
    if fused is not None:
        return f"this model computes it in {roles[fused].rpartition('.')[2]!r}, whose role is {fused!r}"
    ends = {sublayer.linears[name].rpartition(".")[2] for sublayer, name in linears}
    return nearest_name(target, ends | roles.keys())
