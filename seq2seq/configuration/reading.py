"""One JSON file, one experiment: reading it, overriding it, checking every key before anything is done.

    {
        "experiment_name": "rte_tt_lora",                       keys of the run: the fields of RunArguments
        "model_name_or_path": "t5-base",
        "task_name": "rte",
        "adapter": {"kind": "tt_lora", "rank": 8},              an object or a list of objects, see adapters
        "learning_rate": 0.001, "num_train_epochs": 20          training arguments of transformers, by their own names
    }

On the command line ``key=value`` overrides a key, ``adapter.rank=4`` one inside, ``adapter[0].rank=4`` one of a list; a
value is read as JSON would be (4 is a number, true a truth value, null nothing, [1,2] a list), else as a string. With a
key ``sweep`` the file describes several runs, see ``seq2seq.configuration.sweep``.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException
from transformers import Seq2SeqTrainingArguments

from adapters import ConfigurationError, RankSchedule, as_configs
from adapters.validation import check_keys, check_type
from seq2seq.configuration.keys import TRAINING_DEFAULTS, Experiment, RunArguments
from seq2seq.configuration.rules import (
    RESERVED_ARGUMENTS,
    check_adapters,
    check_mixture,
    check_ranges,
    check_rank_schedule,
    check_reserved_arguments,
    check_run,
    check_training,
)
from seq2seq.tasks.mixing import Mixture

PATHS = ("output_root", "model_name_or_path", "data_dir", "train_file", "validation_file", "test_file", "adapter_path")
"""Keys in which ~ is the home directory."""

OBJECTS = {"mixture": Mixture, "rank_schedule": RankSchedule}
"""Keys of the run that are objects themselves."""


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read a JSON file, apply ``key=value`` overrides, and check the whole.

    Raises:
        ConfigurationError: one sentence that names the key, what was given and what is allowed.
    """
    return read_experiment(load_values(path, overrides))


def load_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a JSON file with ``key=value`` overrides applied; their keys are not checked yet.

    Raises:
        ConfigurationError: the file is none, holds no JSON object, or an override names no place in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f"A run is described by a JSON file; {str(path)!r} is no file: check the path.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeated_keys)
    except (ValueError, OSError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"A run is described by JSON; {path} cannot be read ({error}): mend that place."
        ) from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"A run is one JSON object; {path} holds a {type(values).__name__}: put it in braces.")
    return override(values, overrides)


def override(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``values`` with each ``dotted.key=value`` set; ``sweep.dotted.key=[...]`` sets an axis of the sweep."""
    try:
        config = OmegaConf.create(values)
    except (OmegaConfBaseException, GrammarParseError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"A run is described by plain JSON; a value cannot be read ({reason}): mend it."
        ) from None
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"An override is key=value; got {text!r}: write for example learning_rate=0.001.")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        try:
            if key.startswith("sweep."):  # the rest is one name, dots and all
                config.sweep = {**(config.get("sweep") or {}), key.removeprefix("sweep."): parsed}
            else:
                OmegaConf.update(config, key, parsed, merge=False, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(
                f"Override {text!r} names no place in the configuration ({reason}): check the key."
            ) from None
    return OmegaConf.to_container(config, resolve=False)


def read_experiment(values: dict[str, Any]) -> Experiment:
    """Check a configuration key by key.

    Raises:
        ConfigurationError: a key is unknown or missing, a value does not fit, or keys exclude each other.
    """
    run_types = get_type_hints(RunArguments)
    training_types = get_type_hints(Seq2SeqTrainingArguments)
    known_training = {f.name for f in fields(Seq2SeqTrainingArguments) if f.init} - set(run_types)
    if values.get("sweep") is not None:
        raise ConfigurationError(
            "Key 'sweep' describes several runs and stands at the top of a file; it was given where one run is read: "
            "take it out, or give the file to run_seq2seq.py."
        )
    values = {key: value for key, value in values.items() if key != "sweep"}
    check_reserved_arguments(values)
    check_keys(
        values,
        {*run_types, "adapter", *(known_training - set(RESERVED_ARGUMENTS))},
        "The configuration",
    )

    if "experiment_name" not in values:
        raise ConfigurationError("A run has a key 'experiment_name', the name of its folder; none was given: add it.")
    given = {
        key: check_type(key, value, run_types[key], "the run")
        for key, value in values.items()
        if key in run_types and key not in OBJECTS
    }
    objects = {key: cls.from_dict(values[key]) for key, cls in OBJECTS.items() if values.get(key) is not None}
    run = RunArguments(
        **{key: os.path.expanduser(value) if key in PATHS and value else value for key, value in given.items()},
        **objects,
    )
    defaults = TRAINING_DEFAULTS | ({"do_predict": "test" in run.files} if run.files else {})
    training = {
        key: check_type(key, value, _plain_type(training_types[key]), "the training arguments")
        for key, value in {**defaults, **values}.items()
        if key in known_training
    }
    check_run(run)
    check_ranges({**training, **{key: getattr(run, key) for key in run_types}})
    check_training(run, training)
    check_mixture(run, training)
    adapter = values.get("adapter")
    configs = tuple(as_configs({"kind": "none"} if adapter is None else adapter))
    check_adapters(run, configs, training)
    check_rank_schedule(run, configs, training)
    return Experiment(run, configs, training)


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"A key stands once in an object; {repeated!r} stands more than once: remove one.")
    return values


def _plain_type(annotation: Any) -> Any:
    """An enumeration beside str is checked as the names of the enumeration alone."""
    for part in get_args(annotation):
        if isinstance(part, type) and issubclass(part, Enum):
            return Literal[tuple(member.value for member in part)]
    return annotation
