"""The settings of runs: configurations as flat dictionaries that can be compared.

{"adapter": [{"kind": "tt_lora", "rank": 4}], "seed": 0}  ->  {"adapter.kind": "tt_lora", "adapter.rank": 4, ...}
"""

import json
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from adapters import ConfigurationError
from seq2seq.extras import EXTRAS
from seq2seq.report.collect import Run
from seq2seq.run_folder import TRACKING_KEYS
from seq2seq.workload import DEFAULT_WORKLOAD, Workload, workload_class

IGNORED_KEYS = {
    *("experiment_name", "seed", "do_eval", "do_predict", *TRACKING_KEYS),
    *(field.name for extra in EXTRAS if not extra.changes_training for field in fields(extra)),
}
"""Keys in which the runs of a group may differ."""

METHOD_KEYS = ("workload", "model", "model_name_or_path", "dtype", "adapter_path", "mixture", "max_train_samples")
"""Keys that always distinguish methods, besides those of the adapter."""


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
    config = {"workload": DEFAULT_WORKLOAD, **run.config}
    measured = measured_file(run)
    for key in workload_of(config).file_keys.values() if measured else ():
        if config.get(key):
            config[key] = str(config[key]).removeprefix(os.path.dirname(measured) + os.sep)
    if "model_name_or_path" not in config and run.result is not None:
        config["model"] = run.result.model
    return {
        key: value
        for key, value in flatten(config).items()
        if value is not None and key.partition(".")[0] not in IGNORED_KEYS
    }


def split_of(runs: Sequence[Run]) -> str | None:
    """The split on which runs are compared: test, or validation if one of them has no test; None for neither."""
    return next((split for split in ("test", "validation") if all(split in run.result.metrics for run in runs)), None)


def measured_file(run: Run) -> str | None:
    """The file of your own on which a finished run was measured; None for a known task."""
    if run.result is None:
        return None
    return run.config.get(workload_of(run.config).file_keys.get(split_of([run])))


def method_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that always distinguish methods."""
    return {
        key: value
        for key, value in settings.items()
        if key.startswith(("adapter.", "adapter[")) or key.partition(".")[0] in METHOD_KEYS
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
