"""The folder of a run, and its state.

    outputs/<experiment_name>/
        config.json          the resolved configuration           metrics.json      written last: the run is finished
        adapter/             adapter_config.json, .safetensors    parameters.json   what trains, by group and layer
        predictions_*.jsonl  a record for each row of a split     curve.png         losses and metrics by step
        README.md            the run on one page                  history.json      the values of that curve
        checkpoints/         what an unfinished run resumes from  failure.json      why a run of several ended early
        log.txt              what was logged                      and the files of its extras
        wandb.json           what wandb knows the run by          tensorboard/      event files

An unfinished run of the same configuration resumes; a finished one is kept, and can be extended (by another split or
baseline). Another configuration is refused once there is a checkpoint. ``overwrite`` puts a finished or different run
aside, as <experiment_name>.replaced, until the new one is finished. A folder that is not a run is never touched.
"""

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from adapters import AdapterConfig, ConfigurationError
from adapters.configuration import with_present_names
from adapters.saved.files import replace_file
from seq2seq.experiment import Experiment
from seq2seq.workload import DEFAULT_WORKLOAD

logger = logging.getLogger(__name__)

STEPS = ("do_train", "do_eval", "do_predict")
"""Keys of the parts of a run, which may be started one after the other."""

EXTENDING_KEYS = (*STEPS, "do_factorize", "adapter_path")
"""Keys that may differ when a finished run is extended; those of extras that do not change training are others."""

TRACKING_KEYS = ("output_root", "log_to_wandb", "wandb_project", "report_to", "disable_tqdm")
"""Keys on which the result does not depend."""

WRITTEN = (".json", ".jsonl", ".md", ".txt", ".png", ".pdf", ".svg", ".tex")
"""Suffixes of the files that a run writes."""


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.replaced = directory.with_name(directory.name + ".replaced")
        self.config = directory / "config.json"
        self.metrics = directory / "metrics.json"
        self.adapter = directory / "adapter"
        self.parameters = directory / "parameters.json"
        self.failure = directory / "failure.json"
        self.curve = directory / "curve.png"
        self.history = directory / "history.json"
        self.readme = directory / "README.md"
        self.log = directory / "log.txt"
        self.wandb = directory / "wandb.json"
        self.tensorboard = directory / "tensorboard"
        self.checkpoints = directory / "checkpoints"

    def check_writable(self, experiment: Experiment) -> None:
        """Refuse a folder that cannot be created; writes nothing."""
        there = next(path for path in (self.directory, *self.directory.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"Key 'output_root' must name a writable directory; got {experiment.run.output_root!r}, and {there} "
                "is not writable: choose another one."
            )

    def check(self, experiment: Experiment) -> None:
        """Refuse a folder that cannot be created, or that holds something else; writes nothing."""
        self.check_writable(experiment)
        if not self.directory.exists() or (self.directory.is_dir() and not any(self.directory.iterdir())):
            return
        if not self._is_run():
            raise ConfigurationError(
                f"Key 'experiment_name' must name a run folder; got {self.directory}, which is something else: "
                "choose another name."
            )
        self._check_kinds_of_files()
        key = self._differing_key(experiment)
        if key is not None and self._has_progress() and not experiment.run.overwrite:
            before, now = read_config(self.config).get(key), _plain(experiment).get(key)
            raise ConfigurationError(
                f"Key {key!r} must equal that of the run in {self.directory}, {before!r}; got {now!r}: "
                "choose another experiment_name, or set overwrite to true."
            )

    def is_finished(self, experiment: Experiment) -> bool:
        """Whether the folder has everything that this experiment requests."""
        if experiment.run.overwrite or not self.metrics.is_file():
            return False
        result, training = self.read_result(), experiment.training
        asked = {split for split, key in (("validation", "do_eval"), ("test", "do_predict")) if training[key]}
        if training["do_train"] and result.get("costs", {}) is None:
            return False  # an evaluation or a factorization alone
        return asked & {*experiment.workload.splits} <= result["metrics"].keys() and all(
            extra.is_satisfied_by(result) for extra in experiment.extras
        )

    def open(self, experiment: Experiment) -> None:
        """Create the folder, put a run that ``overwrite`` replaces aside, write config.json, remove failure.json.

        Raises:
            ConfigurationError: the folder holds something else; it is unchanged.
        """
        self.check(experiment)
        if experiment.run.overwrite and self._is_run() and (self.metrics.is_file() or self._differing_key(experiment)):
            if self.replaced.exists():
                shutil.rmtree(self.directory)
            else:
                self.directory.rename(self.replaced)
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.config.is_file() or self._differing_key(experiment):
            write_json(self.config, experiment.to_dict())
        else:
            self._add_steps(experiment)
        self.failure.unlink(missing_ok=True)

    def _add_steps(self, experiment: Experiment) -> None:
        """Let config.json describe the run with all steps that it has had, so that it runs them again."""
        before = read_json(self.config)
        now = {**before, **{key: before.get(key) or experiment.training[key] for key in STEPS}}
        if now != before:
            write_json(self.config, now)

    def finish(self, result: dict[str, Any]) -> None:
        """Write metrics.json, and delete the run that this one replaces."""
        write_json(self.metrics, result)
        if self.replaced.exists():
            shutil.rmtree(self.replaced)

    def read_result(self) -> dict[str, Any]:
        """The contents of metrics.json.

        Raises:
            ConfigurationError: it is not a result.
        """
        try:
            result = read_json(self.metrics)
            reason = None if _is_result(result) else "it is not a result"
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error)
        if reason is not None:
            raise ConfigurationError(
                f"The metrics.json of a finished run has its result; got {self.metrics}, which cannot be read "
                f"({reason}): delete it to let the run go on from its checkpoints, or set overwrite to true."
            )
        return result

    def write_predictions(self, split: str, records: Sequence[dict[str, Any]]) -> None:
        """predictions_<split>.jsonl: a line for each row of a split."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        write_text(self.directory / f"predictions_{split}.jsonl", text)

    def _is_run(self) -> bool:
        """Whether config.json is that of a run of this name."""
        try:
            config = read_json(self.config)
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(config, dict) and config.get("experiment_name") == self.directory.name

    def _check_kinds_of_files(self) -> None:
        """Refuse a directory where the run would write a file, and the reverse."""
        for path in (*self.directory.iterdir(), *self.checkpoints.glob("checkpoint-*")):
            wants_directory = path in (self.adapter, self.checkpoints) or path.parent == self.checkpoints
            if path.is_file() if wants_directory else path.is_dir() and path.suffix in WRITTEN:
                wanted, given = ("directory", "file") if wants_directory else ("file", "directory")
                raise ConfigurationError(
                    f"A run writes a {wanted} {path.name} into its folder; got a {given} of that name in "
                    f"{self.directory}: move it away."
                )

    def _has_progress(self) -> bool:
        """Whether there is a checkpoint, an adapter or a result, which another configuration must not continue."""
        return self.metrics.is_file() or self.adapter.is_dir() or any(self.checkpoints.glob("checkpoint-*"))

    def _differing_key(self, experiment: Experiment) -> str | None:
        """The first key on which the result depends and that differs from the folder's configuration."""
        before, now = {"workload": DEFAULT_WORKLOAD, **read_config(self.config)}, _plain(experiment)
        free = [f.name for extra in experiment.extras if not extra.changes_training for f in fields(extra)]
        keys = sorted({*before, *now} - {*EXTENDING_KEYS, *TRACKING_KEYS, *free})
        return next((key for key in keys if before.get(key) != now.get(key)), None)


def _is_result(value: Any) -> bool:
    """Whether metrics.json holds what ``describe_result`` writes."""
    if not isinstance(value, dict) or not {"metrics", "adapter", "parameters", "model", "task"} <= value.keys():
        return False
    metrics = value["metrics"]
    return isinstance(metrics, dict) and all(isinstance(values, dict) for values in metrics.values())


def _plain(experiment: Experiment) -> dict[str, Any]:
    return json.loads(json.dumps(experiment.to_dict()))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_config(path: Path) -> Any:
    """A run's config.json; fields of adapters that earlier versions called otherwise have their present names.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read.
    """
    config = read_json(path)
    if isinstance(config, dict) and isinstance(entries := config.get("adapter"), list):
        config["adapter"] = [_with_present_names(entry) for entry in entries]
    return config


def _with_present_names(entry: Any) -> Any:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    cls = AdapterConfig.kinds.get(kind) if isinstance(kind, str) else None
    return entry if cls is None else with_present_names(cls, entry)


def read_earlier(path: Path, kind: type) -> Any:
    """What an earlier start of the run wrote, of this type; if it is missing or damaged, an empty one."""
    if not path.exists():
        return kind()
    try:
        value = read_json(path)
        reason = None if isinstance(value, kind) else f"it is no {kind.__name__}"
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    if reason is not None:
        logger.warning("%s cannot be read (%s): what it held is missing, or is measured again.", path, reason)
        return kind()
    return value


def read_json_lines(path: Path) -> list[Any]:
    """The records of a jsonl file, one a line; a text in them may have any separator but a line feed."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def write_json(path: Path, value: Any) -> None:
    """Write the file completely or not at all; values that are not finite are an error."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def finite_metrics(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON has them: Python's floats, and null for what is not finite."""
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


def write_text(path: Path, text: str) -> None:
    """Write the file completely or not at all."""
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
