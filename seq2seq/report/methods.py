"""Aggregate runs into methods.

    group     runs whose configurations differ only in the seed: a mean and a standard deviation
    method    groups with the same backbone, adapter and number of training rows on different tasks: one table row

Settings that vary between tasks (a longer target, another learning rate) do not split a method. If groups on the same
task differ in a setting, the setting distinguishes methods and appears in their names. A method whose runs are all the
runs of one sweep has the name of the sweep.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from seq2seq.extras import EXTRAS
from seq2seq.report.collect import Result, Run
from seq2seq.run_folder import TRACKING_KEYS
from seq2seq.workload import DEFAULT_WORKLOAD

IGNORED_KEYS = {
    *("experiment_name", "seed", "do_eval", "do_predict", *TRACKING_KEYS),
    *(field.name for extra in EXTRAS if not extra.changes_training for field in fields(extra)),
}
"""Keys in which the runs of a group may differ."""

METHOD_KEYS = ("workload", "model", "model_name_or_path", "dtype", "adapter_path", "mixture", "max_train_samples")
"""Keys that always distinguish methods, besides those of the adapter."""

SHORT_NAMES = {"max_train_samples": "n", "learning_rate": "lr"}


@dataclass(frozen=True)
class Score:
    """A metric over seeds: mean, standard deviation (n - 1 in the denominator; None for one run), number of runs."""

    mean: float
    std: float | None
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Score":
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.std is None else f"{self.mean:.4f} ± {self.std:.4f}"


@dataclass(frozen=True)
class Group:
    """Finished runs that differ only in their seed; ``metrics`` by task, then by name, with one value per run."""

    settings: dict[str, Any]
    runs: tuple[Run, ...]
    split: str
    metrics: dict[str, dict[str, list[float]]]

    def score(self, task: str, metric: str = "average_metrics") -> Score | None:
        """A metric of a task over the seeds; None if it was not measured."""
        values = self.metrics.get(task, {}).get(metric)
        return Score.of(values) if values else None


@dataclass(frozen=True)
class Method:
    """A row of the table: a name, a backbone, and a group for each task."""

    label: str
    model: str
    settings: dict[str, Any]
    groups: dict[str, Group]

    @property
    def is_full(self) -> bool:
        """Whether this is full fine-tuning of the backbone."""
        return self.settings.get("adapter.kind") == "none"

    @property
    def train_rows(self) -> int | None:
        """The limit on the training rows of a task; None for all rows."""
        return self.settings.get("max_train_samples")

    def score(self, task: str) -> Score | None:
        """average_metrics of a task; None if no run is finished."""
        return self.groups[task].score(task) if task in self.groups else None

    def average(self) -> Score | None:
        """The mean over the tasks; its deviation is that of the per-seed means over the tasks."""
        scores = [score for score in map(self.score, self.groups) if score is not None]
        if not scores:
            return None
        by_seed = defaultdict(list)
        for task, group in self.groups.items():
            for run, value in zip(group.runs, group.metrics[task].get("average_metrics", []), strict=False):
                by_seed[run.seed].append(value)
        complete = [statistics.fmean(values) for values in by_seed.values() if len(values) == len(self.groups)]
        std = statistics.stdev(complete) if len(complete) > 1 else None
        return Score(statistics.fmean(score.mean for score in scores), std, len(complete))

    def mean(self, cost: str, tasks: Iterable[str] | None = None) -> float | None:
        """The mean over runs of one of COSTS, on some tasks or on all; None if no run has it."""
        groups = {id(group): group for task, group in self.groups.items() if tasks is None or task in tasks}
        values = [COSTS[cost](run.result) for group in groups.values() for run in group.runs]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


COSTS = {
    "trainable_parameters": lambda result: result.parameters.trainable_parameters,
    "share": lambda result: result.parameters.share,
    "adapter_bytes": lambda result: result.adapter_bytes,
    "step_ms": lambda result: _scaled(result.costs and result.costs.step_seconds_median, 1000),
    "peak_memory_mib": lambda result: _scaled(result.costs and result.costs.peak_memory_bytes, 2**-20),
}
"""Measurements of a run besides its metrics: parameters, bytes on disk, milliseconds per step, peak memory in MiB."""


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def methods_of(runs: Sequence[Run]) -> list[Method]:
    """Aggregate finished runs into methods: those with more tasks first, then by decreasing average."""
    bases = defaultdict(list)
    for group in groups_of(runs):
        method_settings = {
            key: value
            for key, value in group.settings.items()
            if key.startswith("adapter.") or key.startswith("adapter[") or key.partition(".")[0] in METHOD_KEYS
        }
        bases[canonical_json(method_settings)].append((method_settings, group))

    rows: dict[str, tuple[dict[str, Any], dict[str, Group]]] = {}
    for members in bases.values():
        by_task = defaultdict(list)
        for _, group in members:
            for task in group.metrics:
                by_task[task].append(group.settings)
        distinguishing = {key for settings in by_task.values() for key in differing_keys(settings)}
        for method_settings, group in members:
            settings = method_settings | {
                key: group.settings[key] for key in sorted(distinguishing) if key in group.settings
            }
            _, groups = rows.setdefault(canonical_json(settings), (settings, {}))
            groups |= dict.fromkeys(group.metrics, group)

    descriptions = method_labels([settings for settings, _ in rows.values()])
    sweeps = [common_sweep(groups.values()) for _, groups in rows.values()]
    labels = [
        sweep if sweep and sweeps.count(sweep) == 1 else description
        for sweep, description in zip(sweeps, descriptions, strict=True)
    ]
    methods = [
        Method(label, model_of(settings, groups), settings, groups)
        for label, (settings, groups) in zip(labels, rows.values(), strict=True)
    ]
    return sorted(methods, key=_sort_key)


def model_of(settings: dict[str, Any], groups: dict[str, Group]) -> str:
    """Return the model as configured, or as the results call it if no key names one."""
    return settings.get("model_name_or_path") or next(iter(groups.values())).runs[0].result.model


def common_sweep(groups: Iterable[Group]) -> str | None:
    """Return the sweep that all these runs belong to, or None."""
    found = {run.sweep for group in groups for run in group.runs}
    return found.pop() if len(found) == 1 else None


def _sort_key(method: Method) -> tuple[str, int, float, str]:
    average = method.average()
    measured = sum(method.score(task) is not None for task in method.groups)
    return method.model, -measured, 0.0 if average is None else -average.mean, method.label


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """Group finished runs; metrics are those of the test split, or of the validation split if there is no test."""
    grouped = defaultdict(list)
    for run in runs:
        if run.state == "finished":
            grouped[canonical_json(settings_of(run))].append(run)
    groups = []
    for members in grouped.values():
        members.sort(key=lambda run: (run.seed, run.name))
        splits = [split for split in ("test", "validation") if all(split in run.result.metrics for run in members)]
        if splits:
            metrics = [metrics_by_task(run.result, splits[0]) for run in members]
            collected = {
                task: {
                    name: [values[task][name] for values in metrics]
                    for name in metrics[0][task]
                    if all(values.get(task, {}).get(name) is not None for values in metrics)
                }
                for task in metrics[0]
            }
            groups.append(Group(settings_of(members[0]), tuple(members), splits[0], collected))
    return groups


def metrics_by_task(result: Result, split: str) -> dict[str, dict[str, float | None]]:
    """Return the metrics of a split by task; those of a mixture are named <task>/<metric>."""
    by_task = defaultdict(dict)
    for name, value in result.metrics[split].items():
        task, slash, metric = name.partition("/")
        if slash:
            by_task[task][metric] = value
    return dict(by_task) or {result.task: result.metrics[split]}


def settings_of(run: Run) -> dict[str, Any]:
    """Flatten the configuration to dotted keys, without null values and the keys that may differ within a group."""
    config = {"workload": DEFAULT_WORKLOAD, **run.config}
    if "model_name_or_path" not in config and run.result is not None:
        config["model"] = run.result.model
    return {
        key: value
        for key, value in flatten(config).items()
        if value is not None and key.partition(".")[0] not in IGNORED_KEYS
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


def method_labels(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Name each method by its kinds and ranks, plus the settings that distinguish methods with equal names."""
    same_name = defaultdict(list)
    for one in settings:
        same_name[one.get("model_name_or_path"), short_label(one)].append(one)
    labels = []
    for one in settings:
        short = short_label(one)
        keys = differing_keys(same_name[one.get("model_name_or_path"), short])
        settings_text = [
            f"{short_key(key)}={compact(one[key])}" for key in keys if key in one and not key.endswith(".rank")
        ]
        labels.append(", ".join([short, *settings_text]))
    return labels


def short_label(settings: dict[str, Any]) -> str:
    """Format kinds and ranks, for example "tt_lora r4 + layer_norm"."""
    parts = []
    for key, kind in settings.items():
        if key.startswith("adapter") and key.endswith("kind"):
            rank = settings.get(key.removesuffix("kind") + "rank")
            name = "full fine-tuning" if kind == "none" else kind
            parts.append(name if rank is None else f"{name} r{compact(rank)}")
    mixed = ["in a mixture"] if any(key.startswith("mixture.") for key in settings) else []
    return " ".join([" + ".join(parts), *mixed])


def short_key(key: str) -> str:
    return SHORT_NAMES.get(key, key.split(".")[-1])


def compact(value: Any) -> str:
    """Format a value in few characters."""
    if isinstance(value, list):
        return "-".join(compact(part) for part in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def canonical_json(value: Any) -> str:
    """Serialize to JSON with sorted keys, so that equal values give equal strings."""
    return json.dumps(value, sort_keys=True)
