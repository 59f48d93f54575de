"""Check that what a configuration names is in the model, as a misspelt name would silently leave modules out.

    target_modules         each end of a path, or the pattern for whole paths, matches a module
    target_parameters      each end of a path is a stack of expert weights, see ``adapters.peft.parameters``
    exclude_modules        likewise
    modules_to_save        each is the end of a path
    layers_to_transform    each number is that of a layer with target modules
    layers_pattern         each is the name of a list of layers with target modules

PEFT's rules for a path: an end is matched after a dot; the layer is the first number that stands between two dots and
after the name of a list. The keys of ``rank_pattern`` and ``shape_pattern`` are checked with the deltas, see
``adapters.tensor_train.patterns``.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any, Literal

from peft import TaskType
from peft.utils.constants import INCLUDE_LINEAR_LAYERS_SHORTHAND as ALL_LINEAR
from peft.utils.constants import SEQ_CLS_HEAD_NAMES

from adapters.validation import check_type, nearest_name, refuse

WHERE = "TensorTrainConfig"
TYPES = {
    "target_modules": str | list[str] | None,
    "target_parameters": list[str] | None,
    "exclude_modules": str | list[str] | None,
    "modules_to_save": list[str] | None,
    "layers_to_transform": int | list[int] | None,
    "layers_pattern": str | list[str] | None,
    "bias": Literal["none", "all", "tt_lora_only"],
    "init_weights": bool,
}
NOT_EMPTY = ("target_modules", "target_parameters", "layers_to_transform")
WHOLE_PATHS = "as a string must be a regular expression for whole paths of modules"


def check_values(config: Any) -> None:
    """Check what can be checked without a model.

    Raises:
        ConfigurationError: a value is not of its type, no regular expression, or an empty list.
    """
    for key, annotation in TYPES.items():
        value = getattr(config, key)
        listed = sorted(value, key=str) if isinstance(value, set | frozenset | tuple) else value
        check_type(key, listed, annotation, WHERE)
        if listed == [] and key in NOT_EMPTY and not (key == "target_modules" and config.target_parameters):
            refuse(key, "must not be an empty list", "[]", "name one at least, or leave it out for the default", WHERE)
        for expression in listed if key == "layers_pattern" and isinstance(listed, list) else [value]:
            _check_expression(key, expression)


def _check_expression(key: str, value: Any) -> None:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            rule, fix = "must be a regular expression", "escape characters that are meant literally"
            refuse(key, rule, f"{value!r} ({error})", fix, WHERE)


def check_selection(
    config: Any, paths: Collection[str], linears: Collection[str], default: Collection[str] | None
) -> None:
    """Check all fields that name modules or layers against a model.

    Args:
        config: a ``TensorTrainConfig``.
        paths: of the modules of the model, without those inside layers that have adapters already.
        linears: those of them that can have deltas.
        default: the names that ``target_modules`` gets for this architecture, of which a model may have only some.

    Raises:
        ConfigurationError: a name or a number is not in the model.
    """
    check_values(config)
    targets, excluded = config.target_modules, config.exclude_modules
    if isinstance(targets, str):
        if targets.lower() != ALL_LINEAR:
            _check_pattern("target_modules", targets, paths, [*linears, ALL_LINEAR])
    elif set(targets) != set(default or ()):
        _check_ends("target_modules", targets, paths, linears)
    if isinstance(excluded, str):
        _check_pattern("exclude_modules", excluded, paths, paths)
    elif excluded:
        _check_ends("exclude_modules", excluded, paths, paths)
    _check_ends("modules_to_save", _named_by_the_user(config), paths, paths)
    _check_layers(config, targets, paths)


def _named_by_the_user(config: Any) -> list[str]:
    """Return ``modules_to_save`` without the names of heads that PEFT adds for a task, of which a model has one."""
    names = list(config.modules_to_save or ())
    added = set(SEQ_CLS_HEAD_NAMES) if set(SEQ_CLS_HEAD_NAMES) <= set(names) else set()
    if config.task_type == TaskType.QUESTION_ANS:
        added.add("qa_outputs")
    return [name for name in names if name not in added]


def _check_ends(key: str, names: Iterable[str], paths: Iterable[str], suggested: Iterable[str]) -> None:
    """Check that each name is the end of a path; suggest ends of as many parts."""
    for name in sorted(names):
        if not any(_ends_with(path, name) for path in paths):
            length = len(name.split("."))
            fix = nearest_name(name, _ends(suggested, length))
            refuse(key, "must name modules of the model by the ends of their paths", repr(name), fix, WHERE)


def _check_pattern(key: str, pattern: str, paths: Iterable[str], suggested: Iterable[str]) -> None:
    """Check that a pattern matches the whole path of a module."""
    if any(re.fullmatch(pattern, path) for path in paths):
        return
    if any(_ends_with(path, pattern) for path in paths):
        fix = f"for an end of paths write a list, [{pattern!r}]"
    else:
        fix = nearest_name((re.findall(r"[\w-]+", pattern) or [pattern])[-1], _ends(suggested, 1))
    refuse(key, WHOLE_PATHS, f"{pattern!r}, which matches none", fix, WHERE)


def _check_layers(config: Any, targets: str | Collection[str], paths: Collection[str]) -> None:
    """Check ``layers_to_transform`` and ``layers_pattern``."""
    chosen, lists = config.layers_to_transform, config.layers_pattern
    if chosen is None:
        if lists:
            fix = "name the layers, or leave it out"
            refuse("layers_pattern", "belongs to layers_to_transform", f"{lists!r} without it", fix, WHERE)
        return
    whole = [targets] if isinstance(targets, str) else sorted(set(targets) & set(paths))
    in_layers = [name for name in whole if isinstance(targets, str) or _layer(name, None) is not None]
    if in_layers:
        rule = "chooses among modules that target_modules names by the ends of their paths"
        given = f"{chosen} with {in_layers[0]!r}, which selects modules of any layer"
        refuse("layers_to_transform", rule, given, "leave it out, or name ends of paths", WHERE)
    found = {name: {path for path in paths if _ends_with(path, name)} for name in targets}
    selected = set().union(*found.values())
    for name in [lists] if isinstance(lists, str) else lists or []:
        if not any(_layer(path, [name]) is not None for path in selected):
            known = {match[1] for path in selected if (match := re.match(r"(?:.*?\.)?([^.]*)\.\d+\.", path))}
            refuse("layers_pattern", "must name lists of layers", repr(name), nearest_name(name, known), WHERE)
    layers = {path: _layer(path, [lists] if isinstance(lists, str) else lists) for path in selected}
    known = sorted({layer for layer in layers.values() if layer is not None})
    for layer in [chosen] if isinstance(chosen, int) else chosen:
        if layer not in known:
            rule, fix = "must hold numbers of layers with target modules", f"these are {_ranges(known)}"
            refuse("layers_to_transform", rule, layer, fix, WHERE)
    for name, of_name in sorted(found.items()):
        if of_name and name not in whole and all(layers[path] is None for path in of_name):
            rule, fix = "with layers_to_transform must name modules in layers, or whole paths", "write its whole path"
            refuse("target_modules", rule, f"{name!r}, which is in none", fix, WHERE)


def _ends(paths: Iterable[str], length: int) -> set[str]:
    """Return the ends of paths of so many parts, without entries of lists, unless there is nothing else."""
    ends = {".".join(path.split(".")[-length:]) for path in paths}
    return {end for end in ends if not end.rpartition(".")[2].isdigit()} or ends


def _ends_with(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _layer(path: str, lists: Iterable[str] | None) -> int | None:
    """Return the number of the layer of a path, by PEFT's rule."""
    expressions = [rf"(?:^|.*?\.){name}\.(\d+)\." for name in lists or ()] or [r".*?\.[^.]*\.(\d+)\."]
    matches = (re.match(expression, path) for expression in expressions)
    return next((int(match[1]) for match in matches if match), None)


def _ranges(numbers: list[int]) -> str:
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers)) or "none"
