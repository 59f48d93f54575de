"""The settings of runs: configurations as flat dictionaries that can be compared.

{"adapter": [{"kind": "tt_lora", "rank": 4}], "seed": 0}  ->  {"adapter.kind": "tt_lora", "adapter.rank": 4, ...}
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from adapters import ConfigurationError
from seq2seq.extras import EXTRAS
from seq2seq.report.collect import Run
from seq2seq.run_folder import TRACKING_KEYS
from seq2seq.workload import DEFAULT_WORKLOAD, Workload, workload_class

IGNORED_KEYS = {
    *("experiment_name", "seed", "do_eval", "do_predict", "overwrite", "data_name", *TRACKING_KEYS),
    *(field.name for extra in EXTRAS if not extra.changes_training for field in fields(extra)),
}
IGNORED_PATTERN = re.compile(
    r"(log|logging|save|hub|push_to_hub|wandb|trackio|tensorboard|debug|ddp)(_.*)?|run_name|project|output_dir"
    r"|eval_(steps|strategy|delay|on_start|accumulation_steps)|per_device_eval_batch_size|resume_from_checkpoint"
    r"|dataloader_(?!drop_last).*|skip_memory_metrics|include_(for_metrics|num_input_tokens_seen|tokens_per_second)"
    r"|enable_jit_checkpoint|restore_callback_states_from_checkpoint|ignore_data_skip"
)
"""Keys in which the runs of a group may differ: what is logged, saved, tracked, and when; how rows are fetched."""

METHOD_KEYS = (
    *("workload", "model", "model_name_or_path", "dtype", "head", "adapter_path", "mixture", "max_train_samples"),
)
"""Keys that always distinguish methods, besides those of the adapter and of factorized weights."""


def workload_of(config: dict[str, Any]) -> type[Workload]:
    """The workload of a configuration; the base class if this version has none of that name."""
    try:
        return workload_class(config.get("workload", DEFAULT_WORKLOAD))
    except ConfigurationError:
        return Workload


def settings_of(run: Run) -> dict[str, Any]:
    """Flatten the configuration to dotted keys, without null values and the keys that may differ within a group.

    Your own files are relative to the folder of the file that results were measured on: data sets in folders of their
    own have equal settings.
    """
    settings = flatten({"workload": DEFAULT_WORKLOAD, **run.config})
    measured = measured_files(run)
    for task, keys in workload_of(run.config).own_file_keys(run.config).items():
        for key in keys.values():
            if task in measured and settings.get(key):
                settings[key] = beside(str(settings[key]), measured[task])
    if "model_name_or_path" not in settings and run.result is not None:
        settings["model"] = run.result.model
    return {key: value for key, value in settings.items() if value is not None and not is_ignored(key)}


def is_ignored(key: str) -> bool:
    """Whether the runs of a group may differ in a dotted key."""
    first = key.partition(".")[0]
    return first in IGNORED_KEYS or IGNORED_PATTERN.fullmatch(first) is not None


def split_of(runs: Sequence[Run]) -> str | None:
    """The split on which runs are compared: test, or validation if one of them has no test; None for neither."""
    return next((split for split in ("test", "validation") if all(split in run.result.metrics for run in runs)), None)


def measured_files(run: Run) -> dict[str | None, str]:
    """The files of your own on which a finished run was measured, by task; None is a task without a name."""
    if run.result is None:
        return {}
    split, values = split_of([run]), flatten(run.config)
    keys = workload_of(run.config).own_file_keys(run.config)
    files = {task: values.get(by_split.get(split)) for task, by_split in keys.items()}
    return {task: os.path.normpath(file) for task, file in files.items() if isinstance(file, str) and file}


def is_same_path(first: str, second: str) -> bool:
    """Whether two normalised paths are equal, or one is absolute and ends with the other, whose start is unknown."""
    longer, shorter = (first, second) if os.path.isabs(first) else (second, first)
    one_is_relative = os.path.isabs(longer) and not os.path.isabs(shorter)
    return first == second or (one_is_relative and longer.endswith(os.sep + shorter))


def beside(path: str, measured: str) -> str:
    """A path relative to the folder of a measured file, where it is below that folder."""
    path, folder = os.path.normpath(path), os.path.dirname(measured)
    if is_same_path(os.path.dirname(path), folder):
        return os.path.basename(path)
    return path.removeprefix(folder + os.sep)


def method_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that always distinguish methods."""
    return {
        key: value
        for key, value in settings.items()
        if key.startswith(("adapter.", "adapter[", "factorize.", "factorize[")) or key.partition(".")[0] in METHOD_KEYS
    }


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested objects to dotted keys; a list of several objects to key[0], key[1], a list of one to key."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            for index, part in enumerate(value):
                found |= flatten(part, f"{prefix}{key}." if len(value) == 1 else f"{prefix}{key}[{index}].")
        else:
            found[prefix + key] = value
    return found


def differing_keys(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys in which some of these settings differ, in order."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({canonical_json(one.get(key)) for one in settings}) > 1]


def canonical_json(value: Any) -> str:
    """Serialize to JSON with sorted keys, so that equal values give equal strings."""
    return json.dumps(value, sort_keys=True)
