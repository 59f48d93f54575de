"""One JSON file, one experiment: read it, apply overrides, check every key before anything is done.

    {
        "experiment_name": "rte_tt_lora",                       keys of every run: the fields of RunArguments
        "workload": "text", "task_name": "rte",                 keys of the workload: the fields of its class
        "baselines": ["majority"],                              keys of extras: the fields of their classes
        "adapter": {"kind": "tt_lora", "rank": 8},              an object or a list of objects, see adapters
        "learning_rate": 0.001, "num_train_epochs": 20          training arguments of transformers, by their own names
    }

On the command line ``key=value`` overrides a key, ``adapter.rank=4`` a key inside an object, ``adapter[0].rank=4`` one
inside a list; a value is parsed as JSON if possible (4, true, null, [1,2]), else it is a string. With a key ``sweep``
the file describes several runs, see ``seq2seq.configuration.sweep``.
"""

import contextlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from adapters import AdapterConfig, ConfigurationError, as_configs
from adapters.saved.checkpoint import read_checkpoint
from adapters.validation import check_keys, check_type, nearest_name
from seq2seq import PROJECT
from seq2seq.configuration.defaults import with_training_defaults
from seq2seq.configuration.misplaced import check_misplaced
from seq2seq.configuration.rules import RESERVED_ARGUMENTS, check_experiment, check_reserved_arguments, check_run
from seq2seq.errors import refusing
from seq2seq.experiment import Experiment, RunArguments
from seq2seq.extras import EXTRAS
from seq2seq.workload import DEFAULT_WORKLOAD, WORKLOADS, Workload, workload_class

PATHS = ("output_root", "adapter_path")
"""Keys of every run in which ~ is the home directory."""

DEEPEST = 16
TOO_DEEP = f"The JSON of a configuration is nested at most {DEEPEST} deep; got {{}}: check its brackets."


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read a JSON file, apply ``key=value`` overrides, and check the result.

    Raises:
        ConfigurationError: one sentence with the key, what was given and what is allowed.
    """
    return read_experiment(load_values(path, overrides))


def load_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a JSON file with ``key=value`` overrides applied; their keys are not checked yet.

    Raises:
        ConfigurationError: the file does not exist or has no JSON object, or an override does not match it.
    """
    path = find_file(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeated_keys)
    except (ValueError, OSError, RecursionError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"A run is described by JSON; got {path}, which cannot be read ({error}): fix the syntax."
        ) from None
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"A run must be one JSON object; got a {type(values).__name__} in {path}: put it in braces."
        )
    return override(values, overrides)


def find_file(path: str | Path) -> Path:
    """The file itself, or the one that ships with the project: "configs/quickstart.json", "quickstart", "demo/bitfit".

    Raises:
        ConfigurationError: neither exists.
    """
    configs = PROJECT / "configs"
    for candidate in (Path(path), PROJECT / path, configs / f"{path}.json"):
        if candidate.is_file():
            return candidate
    names = [str(file.relative_to(configs).with_suffix("")) for file in sorted(configs.rglob("*.json"))]
    raise ConfigurationError(
        f"A run is described by a JSON file; got {str(path)!r}, which is not a file: check the path, or name one that "
        f"ships with the project: {nearest_name(str(path), names)}"
    )


def override(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``values`` with each ``dotted.key=value`` set; ``sweep.dotted.key=[...]`` sets an axis of the sweep."""
    check_depth(values)
    try:
        config = OmegaConf.create(values)
    except (OmegaConfBaseException, GrammarParseError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"A run is described by plain JSON; got a value that cannot be read ({reason}): fix it."
        ) from None
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigurationError(
                f"An override must be key=value; got {text!r}: write for example learning_rate=0.001."
            )
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        except RecursionError:
            raise ConfigurationError(TOO_DEEP.format(f"the value of {key!r}")) from None
        check_depth(parsed)
        try:
            if key.startswith("sweep."):  # the rest is one key, dots included
                config.sweep = {**(config.get("sweep") or {}), key.removeprefix("sweep."): parsed}
            else:
                OmegaConf.update(config, key, parsed, merge=False, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
            first, _, rest = key.partition(".")
            is_list = rest and isinstance(values.get(first), list)
            reason = f"{first} is a list: write {first}[0].{rest}" if is_list else str(error).splitlines()[0]
            raise ConfigurationError(
                f"An override must name a key of the configuration; got {text!r} ({reason}): check the key."
            ) from None
    return OmegaConf.to_container(config, resolve=False)


def check_depth(values: Any) -> None:
    """Refuse lists and objects nested deeper than any key is."""
    layer, depth = [values], 0
    while layer := [value for value in layer if isinstance(value, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise ConfigurationError(TOO_DEEP.format("more"))
        layer = [inner for value in layer for inner in (value.values() if isinstance(value, dict) else value)]


def read_experiment(values: dict[str, Any]) -> Experiment:
    """Check a configuration key by key, then how keys fit each other.

    Raises:
        ConfigurationError: a key is unknown or missing, a value does not fit, or keys exclude each other.
    """
    experiment = read_keys(values)
    check_experiment(experiment)
    return experiment


def read_keys(values: dict[str, Any]) -> Experiment:
    """Check a configuration key by key; files that it names may be missing.

    Raises:
        ConfigurationError: a key is unknown or missing, or a value is not of its type.
    """
    if values.get("sweep") is not None:
        raise ConfigurationError(
            "Key 'sweep' belongs at the top level of a file; got it in the configuration of one run: take it "
            "out, or give the file to run_seq2seq.py."
        )
    values = {key: value for key, value in values.items() if key != "sweep"}
    workload = workload_class(values.pop("workload", DEFAULT_WORKLOAD))
    arguments = {**get_type_hints(workload.arguments_class), "fsdp": bool}  # transformers' hint is that of its past
    parts = (RunArguments, workload, *EXTRAS)
    own = {f.name for part in parts for f in fields(part)}
    arguments = {f.name: arguments[f.name] for f in fields(workload.arguments_class) if f.init and f.name not in own}
    check_reserved_arguments(values, workload)
    reserved = {*RESERVED_ARGUMENTS, *workload.reserved_arguments}
    known = {*own, "adapter", *(arguments.keys() - reserved)}
    check_whose_keys(values.keys() - known, workload)
    check_misplaced(values, known, workload)
    check_keys(values, known, "the configuration")

    run = _read(RunArguments, values, "the run", PATHS)
    task = _read(workload, values, f"the workload {workload.name!r}", workload.paths)
    training = {
        key: check_type(key, value, _plain_type(arguments[key]), "the training arguments")
        for key, value in with_training_defaults(values, run, task).items()
        if key in arguments
    }
    configs = tuple(as_configs(values["adapter"]) if values.get("adapter") is not None else default_adapters(run))
    extras = tuple(_read(extra, values, "the run") for extra in EXTRAS)
    return Experiment(run, task, extras, configs, training)


def default_adapters(run: RunArguments) -> Sequence[AdapterConfig]:
    """The adapters of a run that names none: those of its ``adapter_path``, else the kind ``none``."""
    check_run(run)
    if run.adapter_path is None:
        return as_configs({"kind": "none"})
    with refusing("adapter_path", run.adapter_path):
        saved = read_checkpoint(Path(run.adapter_path)).adapters
    first_task = saved[0][0] if saved else None  # adapters by task have the same configurations
    return [config for task, config in saved if task == first_task]


def check_whose_keys(unknown: Collection[str], workload: type[Workload]) -> None:
    """Refuse a key of another workload, and name that workload."""
    for name in WORKLOADS if unknown else ():
        others = ()
        with contextlib.suppress(ImportError):  # of a workload whose libraries are not installed
            others = fields(workload_class(name))
        for field in others:
            if field.name in unknown and field.name not in workload.other_names:
                raise ConfigurationError(
                    f"Key {field.name!r} belongs to the workload {name!r}; got it in a run of the workload "
                    f'{workload.name!r}: leave it out, or write "workload": "{name}".'
                )


def _read(cls: type, values: Mapping[str, Any], where: str, paths: Collection[str] = ()) -> Any:
    """The dataclass of these keys, each of its type; ~ is the home directory in ``paths``."""
    annotations = get_type_hints(cls)
    given = {}
    for field in fields(cls):
        key = field.name
        if key in values:
            given[key] = _typed(key, values[key], annotations[key], where)
            if key in paths and given[key]:
                given[key] = os.path.expanduser(given[key])
        elif field.default is field.default_factory is MISSING:
            raise ConfigurationError(f"Key {key!r} of {where} is required; got none: add it.")
    return cls(**given)


def _typed(key: str, value: Any, annotation: Any, where: str) -> Any:
    """A value of its type; an object of JSON goes to the class of an annotation ``X | None`` that reads it."""
    nested = next((part for part in get_args(annotation) if hasattr(part, "from_dict")), None)
    if nested is None:
        return check_type(key, value, annotation, where)
    return None if value is None else nested.from_dict(value)


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(
            f"A key may appear only once in an object; got {repeated!r} more than once: remove one."
        )
    return values


def _plain_type(annotation: Any) -> Any:
    """Accept an enumeration by its values only."""
    for part in get_args(annotation):
        if isinstance(part, type) and issubclass(part, Enum):
            return Literal[tuple(member.value for member in part)]
    return annotation
