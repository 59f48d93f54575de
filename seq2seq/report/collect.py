"""Find the run folders below a directory and read their results.

finished     metrics.json exists                   broken    a file cannot be read
failed       failure.json exists                   running   neither: the run is still going, or was stopped
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from adapters import ConfigurationError
from seq2seq.run_folder import RunFolder, read_config, read_json

STATES = ("finished", "failed", "broken", "running")


class Parameters(BaseModel):
    """Parameter counts of a run's model."""

    trainable_parameters: int
    base_parameters: int
    share: float
    groups: dict[str, dict[str, int]] = {}
    layers: dict[str, dict[str, int]] = {}

    @property
    def without_head(self) -> int:
        """Trainable parameters without those of a head."""
        return without_head(self.model_dump())


class Costs(BaseModel):
    """Cost of training, in seconds and bytes."""

    step_seconds_median: float | None = None
    peak_memory_bytes: int | None = None
    memory_by_layer: dict[str, dict[str, int | None]] | None = None


class Result(BaseModel):
    """The part of metrics.json that the report needs; other keys are ignored. All values are finite."""

    model_config = ConfigDict(allow_inf_nan=False)

    task: str
    model: str
    metrics: dict[str, dict[str, float | None]]
    parameters: Parameters
    adapter_bytes: int | None = None
    costs: Costs | None = None
    baselines: dict[str, dict[str, float | None]] | None = None


@dataclass(frozen=True)
class Run:
    """A run folder: its path below the root, state and configuration; its result and place if it is finished."""

    name: str
    state: Literal["finished", "failed", "broken", "running"]
    config: dict[str, Any]
    sentence: str = ""
    result: Result | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    directory: Path | None = None

    @property
    def seed(self) -> int:
        """The seed of training; transformers' default if none is set."""
        return self.config.get("seed", 42)

    @property
    def sweep(self) -> str | None:
        """The name of the sweep that the run belongs to: that of the folder around it, None directly below the root."""
        return PurePosixPath(self.name).parent.name or None


def without_head(parameters: Mapping[str, Any]) -> int:
    """The trainable parameters of a result without those of a task's head, which every method has."""
    head = parameters.get("groups", {}).get("head", {})
    return parameters["trainable_parameters"] - head.get("trainable", 0)


def collect_runs(root: Path, patterns: Sequence[str] = ()) -> list[Run]:
    """Read the run folders below ``root``, ordered by path.

    Args:
        root: a directory.
        patterns: such as "tt_*", for the path of a run below ``root``, its folder or one around it; none for all runs.

    Raises:
        ConfigurationError: ``root`` is not a directory, contains no runs, or a pattern matches none of them.
    """
    if not root.is_dir():
        raise ConfigurationError(
            f"A report needs a directory with runs; got {str(root)!r}, which is not a directory: check the path."
        )
    runs = [read_run(path.parent, root) for path in sorted(root.rglob("config.json")) if is_run(path)]
    if not runs:
        raise ConfigurationError(
            f"A report needs at least one run folder; got none below {str(root)!r}: start a run with run_seq2seq.py."
        )
    for pattern in patterns:
        if not any(matches(run.name, pattern) for run in runs):
            raise ConfigurationError(
                f"Option --runs has patterns of run folders; got {pattern!r}, which matches none of the {len(runs)} "
                f"below {str(root)!r}, such as {runs[0].name!r}: quote it, and check it against their paths."
            )
    return [run for run in runs if not patterns or any(matches(run.name, pattern) for pattern in patterns)]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches the path of a run, its folder, or a folder around it."""
    path = PurePosixPath(name)
    return any(fnmatchcase(text, pattern) for text in (name, path.name, *map(str, path.parents), *path.parts))


def is_run(path: Path) -> bool:
    """Whether a config.json belongs to a run, rather than to a model or a replaced run."""
    try:
        config = read_json(path)
    except (OSError, ValueError, RecursionError):
        return path.with_name("metrics.json").is_file()  # reported as a broken run
    return isinstance(config, dict) and config.get("experiment_name") == path.parent.name


def read_run(directory: Path, root: Path) -> Run:
    """Read the run in a folder, whatever the state of its files."""
    folder, name = RunFolder(directory), directory.relative_to(root).as_posix()
    try:
        config = read_config(folder.config)
    except (OSError, ValueError, RecursionError) as error:
        return Run(name, "broken", {}, f"config.json cannot be read: {error}.")
    if folder.metrics.is_file():
        try:
            result = Result.model_validate(read_json(folder.metrics))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the top level"
            return Run(name, "broken", config, f"metrics.json cannot be read at {place}: {first['msg']}.")
        except (OSError, ValueError, RecursionError) as error:
            return Run(name, "broken", config, f"metrics.json cannot be read: {error}.")
        return Run(name, "finished", config, "", result, read_history(folder.history), directory)
    if folder.failure.is_file():
        try:
            sentence = str(read_json(folder.failure)["sentence"])
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            sentence = "failure.json cannot be read."
        return Run(name, "failed", config, sentence)
    return Run(name, "running", config, "Neither metrics.json nor failure.json exists yet.")


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the logged values by step; an empty list if the file is missing (the run did not train) or broken."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    finite = [
        {key: value for key, value in entry.items() if isinstance(value, int | float) and math.isfinite(value)}
        for entry in entries
    ]
    return [entry for entry in finite if "step" in entry]
