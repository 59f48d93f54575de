"""Rules of the keys of tasks beyond their types and ranges; each violation is one sentence."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from adapters import AdapterConfig, ConfigurationError
from seq2seq.tasks.keys import TaskKeys
from seq2seq.tasks.registry import TASKS
from seq2seq.tasks.splits import SPLIT_POLICIES


def check_tasks(keys: TaskKeys, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
    """Refuse tasks, files, models and training arguments that do not fit each other."""
    check_task(keys)
    check_paths(keys)
    if keys.mixture is not None:
        check_mixture(keys, configs, training)


def check_task(keys: TaskKeys) -> None:
    """Refuse an unknown task, and anything but exactly one of a task, a mixture and files."""
    for name in keys.described:
        if name in TASKS:
            raise ConfigurationError(
                f"Key 'tasks' describes new tasks; got {name!r}, the name of a built-in one: choose another name."
            )
    if sum((keys.task_name is not None, keys.mixture is not None, bool(keys.files))) != 1:
        tasks = None if keys.mixture is None else list(keys.mixture.tasks)
        raise ConfigurationError(
            "A run needs one of task_name, mixture and your own files (train_file, validation_file, test_file); got "
            f"task_name={keys.task_name!r}, a mixture of {tasks} and files {sorted(keys.files)}: give one"
            + (f", such as task_name={next(iter(keys.described))!r}." if keys.described else ".")
        )
    if all(spec.files for spec in keys.specs) and keys.data_dir is not None:
        raise ConfigurationError(
            "Key 'data_dir' belongs to a task_name or a mixture whose files are looked up; got "
            f"{keys.data_dir!r} together with files: drop one."
        )
    if keys.split_policy is not None:
        check_split_policy(keys)
    if keys.data_name is not None and (not keys.files or not keys.data_name.strip()):
        raise ConfigurationError(
            f"Key 'data_name' names the task of your own files; got {keys.data_name!r} and files {sorted(keys.files)}: "
            "leave it out."
        )


def check_split_policy(keys: TaskKeys) -> None:
    """Refuse a split policy for tasks whose labelled rows are not a training and a validation set."""
    for name in keys.task_names or (None,):
        spec = keys.described.get(name) or TASKS.get(name)
        parts = None if spec is None or spec.files else SPLIT_POLICIES[spec.split][0]
        if parts != SPLIT_POLICIES[keys.split_policy][0]:
            given = "your own files" if name is None else f"the task {name!r}"
            raise ConfigurationError(
                "Key 'split_policy' divides the labelled rows of a task that come as a training and a validation set; "
                f"got {keys.split_policy!r} for {given}, whose splits are given: leave it out."
            )


def check_paths(keys: TaskKeys) -> None:
    """Refuse files and directories that do not exist."""
    for spec in keys.specs:
        for split, path in spec.files.items():
            if not os.path.isfile(path):
                key = f"tasks.{spec.name}.files.{split}" if keys.task_names else keys.file_keys[split]
                raise ConfigurationError(
                    f"Key {key!r} names a file; got {path!r}, which does not exist: check the path."
                )
    if keys.data_dir is not None and not os.path.isdir(keys.data_dir):
        raise ConfigurationError(
            f"Key 'data_dir' names a directory; got {keys.data_dir!r}, which does not exist: check the path."
        )
    if not os.path.isdir(keys.model_location) and keys.model_location.startswith(("/", ".")):
        raise ConfigurationError(
            "Key 'model_name_or_path' names a directory, or a model in the cache or on the hub; got "
            f"{keys.model_name_or_path!r}, which is not a directory: check the path."
        )


def check_mixture(keys: TaskKeys, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
    """Refuse training arguments that a mixture decides, and kinds that cannot be attached for each task."""
    strategy = training.get("train_sampling_strategy", "random")
    if strategy != "random":
        raise ConfigurationError(
            f"Key 'train_sampling_strategy' must be 'random' in a mixture, which orders its rows itself; got "
            f"{strategy!r}: leave it out."
        )
    if keys.mixture.batches == "one_task" and training.get("auto_find_batch_size"):
        raise ConfigurationError(
            "Key 'auto_find_batch_size' must be false if batches are of one task, which fixes their size; got "
            "True: leave it out."
        )
    if not keys.adapters_per_task:
        return
    if training.get("ddp_find_unused_parameters") is not None:
        raise ConfigurationError(
            "Key 'ddp_find_unused_parameters' is set by the run if each task has its own adapters; got "
            f"{training['ddp_find_unused_parameters']}: leave it out."
        )
    for config in configs:
        if config.position == "weights":
            raise ConfigurationError(
                "Key 'adapters' of the mixture must be 'shared' if a kind trains the model's own weights, which all "
                f"tasks share; got 'per_task' and the kind {config.kind!r}: drop the kind, or share the adapters."
            )
