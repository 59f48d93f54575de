"""The run folders below a directory, and what can be read of each.

finished     metrics.json is there                 broken    a file is there that cannot be read
failed       failure.json is there                 running   neither: the run goes on, or was stopped
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from adapters import ConfigurationError
from seq2seq.run_folder import RunFolder, read_json

STATES = ("finished", "failed", "broken", "running")


class Parameters(BaseModel):
    """Counts of a run's model."""

    trainable_parameters: int
    base_parameters: int
    share: float


class Costs(BaseModel):
    """What training took, in seconds and bytes."""

    step_seconds_median: float | None = None
    peak_memory_bytes: int | None = None
    memory_by_layer: dict[str, dict[str, int | None]] | None = None


class Result(BaseModel):
    """What the report reads of metrics.json; what else is there is left alone. Numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)

    task: str
    model: str
    metrics: dict[str, dict[str, float | None]]
    parameters: Parameters
    adapter_bytes: int | None = None
    costs: Costs | None = None


@dataclass(frozen=True)
class Run:
    """A run folder as found: its path below the root, its configuration, and its result where it is finished."""

    name: str
    state: Literal["finished", "failed", "broken", "running"]
    config: dict[str, Any]
    sentence: str = ""
    result: Result | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """The seed of training; that of transformers where none was given."""
        return self.config.get("seed", 42)

    @property
    def sweep(self) -> str | None:
        """The experiment whose cell this run is: the name of the folder around it, None below the root."""
        return PurePosixPath(self.name).parent.name or None


def collect_runs(root: Path) -> list[Run]:
    """Every run folder below ``root``, ordered by path.

    Raises:
        ConfigurationError: ``root`` is no directory, or there is no run in it.
    """
    if not root.is_dir():
        raise ConfigurationError(f"A report is made of a directory with runs; {str(root)!r} is none: check the path.")
    runs = [read_run(path.parent, root) for path in sorted(root.rglob("config.json")) if is_run(path)]
    if not runs:
        raise ConfigurationError(
            f"A report is made of run folders; there is none below {str(root)!r}: start one with run_seq2seq.py."
        )
    return runs


def is_run(path: Path) -> bool:
    """Whether a config.json is that of a run, not of a model or of a run that is put aside."""
    try:
        config = read_json(path)
    except (OSError, ValueError):
        return path.with_name("metrics.json").is_file()  # a run whose configuration is broken is to be named
    return isinstance(config, dict) and config.get("experiment_name") == path.parent.name


def read_run(directory: Path, root: Path) -> Run:
    """The run in a folder, whatever state its files are in."""
    folder, name = RunFolder(directory), directory.relative_to(root).as_posix()
    try:
        config = read_json(folder.config)
    except (OSError, ValueError) as error:
        return Run(name, "broken", {}, f"config.json cannot be read: {error}.")
    if "model_name_or_path" not in config:
        return Run(name, "broken", config, "config.json names no model.")
    if folder.metrics.is_file():
        try:
            result = Result.model_validate(read_json(folder.metrics))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the whole"
            return Run(name, "broken", config, f"metrics.json cannot be read at {place}: {first['msg']}.")
        except (OSError, ValueError) as error:
            return Run(name, "broken", config, f"metrics.json cannot be read: {error}.")
        return Run(name, "finished", config, "", result, read_history(folder.history))
    if folder.failure.is_file():
        try:
            sentence = str(read_json(folder.failure)["sentence"])
        except (OSError, ValueError, KeyError, TypeError):
            sentence = "failure.json cannot be read."
        return Run(name, "failed", config, sentence)
    return Run(name, "running", config, "Neither metrics.json nor failure.json is there yet.")


def read_history(path: Path) -> list[dict[str, float]]:
    """The logged numbers by step; nothing where the file is missing or broken, as in runs that did not train."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    numbers = [
        {key: value for key, value in entry.items() if isinstance(value, int | float) and math.isfinite(value)}
        for entry in entries
    ]
    return [entry for entry in numbers if "step" in entry]
