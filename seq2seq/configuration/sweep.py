"""Several experiments from one JSON file: each combination of alternatives is a run, called a cell.

    {
        "experiment_name": "rank_study", "task_name": "rte", "adapter": {"kind": "tt_lora"},
        "sweep": {"adapter.rank": [2, 4, [4, 8]], "seed": [0, 1, 2]}          3 x 3 cells
    }

An axis is a dotted key, as in an override, with a list of alternatives; an alternative may be a list itself. The axis
"settings" varies several keys together: {"settings": [{"rank": 2, "learning_rate": 1e-3}, {...}]}. The cells are the
product of the axes; the last axis varies fastest. The folder of a cell,

    <output_root>/<experiment_name>/rank-4-8__seed-2/

is named after what varies. A cell is an ordinary run: it resumes, is kept when finished, and its config.json runs it
alone. ``sweep.seed=[0,1]`` on the command line sets an axis, ``sweep=null`` removes the sweep.
"""

import copy
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters import ConfigurationError
from adapters.validation import check_type
from seq2seq.configuration.reading import load_values, override, read_experiment
from seq2seq.configuration.rules import check_experiment_name
from seq2seq.experiment import Experiment

FOLDER_KEYS = ("experiment_name", "output_root", "overwrite")
"""Keys of the run folder, which the sweep sets itself."""

TOGETHER = "settings"
"""The axis whose alternatives are objects of several keys."""

LONGEST_NAME = 120
"""Characters of a cell's name; file systems allow 255 bytes, and a run adds suffixes to its name."""


def load_cells(paths: Sequence[str | Path], overrides: Sequence[str] = ()) -> list[Experiment]:
    """The runs that JSON files describe; a file with a ``sweep`` describes its cells. Overrides apply to each.

    Raises:
        ConfigurationError: one of the runs is refused, two of them would share a folder, or one would be inside
            another.
    """
    cells = []
    for path in paths:
        values = load_values(path, overrides)
        swept = values.get("sweep") if isinstance(values.get("sweep"), dict) else {}
        for text in overrides:
            key, _, value = text.partition("=")
            varied = [(name, axis) for axis, found in swept.items() for name in keys_of(axis, found)]
            name, axis = next(((name, axis) for name, axis in varied if is_within(key, name)), (None, None))
            if axis is not None:
                fix = f"write sweep.{key}=[{value}]" if key == axis else f"set it in the alternatives of {axis!r}"
                raise ConfigurationError(
                    f"Key {name!r} is varied by the sweep of {path}; the override {text!r} would change nothing: {fix}."
                )
        sweep = values.get("experiment_name") if values.get("sweep") else None
        cells += [replace(read_experiment(cell), sweep=sweep) for cell in expand(values)]
    check_folders(cells)
    return cells


def check_folders(cells: Sequence[Experiment]) -> None:
    """Refuse runs that would share a folder, or of which one would be inside another."""
    folders = Counter(cell.run.directory for cell in cells)
    for folder, runs in folders.items():
        if runs > 1:
            raise ConfigurationError(
                f"Key 'experiment_name' must give each run its own folder; got {runs} runs that would share {folder}: "
                "give each file its own name."
            )
        if folder.parent in folders:
            raise ConfigurationError(
                f"Key 'experiment_name' of a sweep names a folder of runs; got {folder.parent}, which would be a run "
                "itself: give each file its own name."
            )


def expand(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The configurations of all cells, or ``values`` alone if there is no ``sweep``.

    Raises:
        ConfigurationError: an axis is not a list of different alternatives, or is a key that cannot vary.
    """
    axes = values.get("sweep")
    values = {key: value for key, value in values.items() if key != "sweep"}
    if axes is None:
        return [values]
    check_axes(axes)
    axes = dict(sorted(axes.items()))  # the names of cells do not depend on the order of the axes
    name = check_type("experiment_name", values.get("experiment_name"), str, "the run")
    check_experiment_name(name)
    root = check_type("output_root", values.get("output_root", "outputs"), str, "the run")
    cells = []
    for alternatives, cell_name in zip(grid(axes), cell_names(axes), strict=True):
        alternatives |= alternatives.pop(TOGETHER, {})
        outermost_first = sorted(alternatives, key=lambda key: key.count("."))  # adapter before adapter.rank
        cell = override(copy.deepcopy(values), [f"{key}={json.dumps(alternatives[key])}" for key in outermost_first])
        cells.append({**cell, "output_root": str(Path(root) / name), "experiment_name": cell_name})
    return cells


def check_axes(axes: Any) -> None:
    """Refuse axes that are not lists of different alternatives, and keys that cannot vary."""
    if not isinstance(axes, dict) or not axes:
        raise ConfigurationError(
            f"Key 'sweep' must be an object of dotted keys with lists of alternatives; got {axes!r}: "
            'write for example {"adapter.rank": [2, 4], "seed": [0, 1]}.'
        )
    for axis, alternatives in axes.items():
        if not isinstance(alternatives, list) or not alternatives:
            raise ConfigurationError(
                f"Key {axis!r} of the sweep must have a list of alternatives; got {alternatives!r}: "
                f"write for example [{json.dumps(alternatives) if alternatives != [] else 1}]."
            )
        if axis == TOGETHER:
            check_settings(axes)
        for key in keys_of(axis, alternatives):
            if key.partition(".")[0] in ("sweep", *FOLDER_KEYS):
                raise ConfigurationError(
                    f"Key 'sweep' varies what a run does; got {key!r}, which names its folder: remove it."
                )
        texts = [canonical(value) for value in alternatives]
        repeated = next((value for value, text in zip(alternatives, texts, strict=True) if texts.count(text) > 1), None)
        if len(set(texts)) < len(texts):
            raise ConfigurationError(
                f"Key {axis!r} of the sweep must have each alternative once; got {repeated!r} twice: drop one."
            )


def check_settings(axes: dict[str, Any]) -> None:
    """Refuse alternatives that are not objects of the same keys, and keys that are an axis too."""
    first = axes[TOGETHER][0]
    for alternative in axes[TOGETHER]:
        if not isinstance(alternative, dict) or not alternative or alternative.keys() != first.keys():
            raise ConfigurationError(
                f"Key {TOGETHER!r} of the sweep has objects of the same keys; got {alternative!r}: "
                'write for example [{"adapter.rank": 2, "learning_rate": 0.001}].'
            )
    both = [(axis, key) for axis in axes for key in first if is_within(axis, key) or is_within(key, axis)]
    if both:
        raise ConfigurationError(
            f"Key {TOGETHER!r} of the sweep varies keys that are no axis; got {both[0][0]!r} in both: remove one."
        )


def keys_of(axis: str, alternatives: Any) -> list[str]:
    """The keys that an axis varies, which need not be valid."""
    if axis != TOGETHER or not isinstance(alternatives, list):
        return [axis]
    return [key for alternative in alternatives[:1] if isinstance(alternative, dict) for key in alternative]


def is_within(key: str, other: str) -> bool:
    """Whether a dotted key is another one or a place in it."""
    return key == other or key.startswith((f"{other}.", f"{other}["))


def grid(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of one alternative from each axis, by key; the last axis varies fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def cell_names(axes: dict[str, list[Any]]) -> list[str]:
    """The names of the cells in the order of ``grid``: all different, and valid as folder names."""
    lasts = Counter(key.split(".")[-1] for key in axes)
    parts = []
    for key, alternatives in axes.items():
        last = key.split(".")[-1]
        name = "" if key == TOGETHER else readable(last if lasts[last] == 1 else key)
        texts = [readable(value) for value in alternatives]
        folded = Counter(text.casefold() for text in texts)  # some file systems ignore case
        marks = [
            "" if text and folded[text.casefold()] == 1 else digest(value)
            for text, value in zip(texts, alternatives, strict=True)
        ]
        parts.append(["-".join(filter(None, (name, text, mark))) for text, mark in zip(texts, marks, strict=True)])
    names = ["__".join(cell) for cell in itertools.product(*parts)]
    return [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{digest(name)}" for name in names]


def readable(value: Any) -> str:
    """A value in the characters of folder names; different values may look alike."""
    if isinstance(value, dict):
        return "-".join(readable(part) for item in value.items() for part in item if part != "kind")
    if isinstance(value, list):
        return "-".join(readable(part) for part in value)
    if isinstance(value, str):
        return re.sub("__+", "_", re.sub(r"[^A-Za-z0-9._-]+", "-", value)).strip("-._")
    return "none" if value is None else json.dumps(value).replace("+", "")  # of 1e+16


def digest(value: Any) -> str:
    """Eight hexadecimal digits that distinguish values."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:8]


def canonical(value: Any) -> str:
    """JSON that is equal for equal values: 1 equals 1.0, and the order of keys does not matter."""

    def number(text: str) -> float:
        value = float(text)
        return int(value) if value.is_integer() else value

    return json.dumps(json.loads(json.dumps(value), parse_float=number), sort_keys=True)
