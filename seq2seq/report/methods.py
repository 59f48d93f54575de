"""From runs to methods: what is one number with a spread, and what is one row of the table.

    group     runs whose configurations differ only in the seed: a mean and a standard deviation
    method    groups of the same backbone, adapter and number of rows on different tasks: a row

Settings that differ from task to task (a longer target, another learning rate) leave a method one row; where groups on
one task differ in a setting, that setting tells methods apart and stands in their names. A method that is the whole of
one experiment's sweep has the experiment's name.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from seq2seq.report.collect import Result, Run
from seq2seq.run_folder import TRACKING_KEYS

NOT_OF_THE_METHOD = {
    *("experiment_name", "seed", "baselines", "measure_expressivity", "do_eval", "do_predict"),
    *TRACKING_KEYS,
}
"""Keys in which runs of one group may differ."""

OF_THE_METHOD = ("model_name_or_path", "dtype", "adapter_path", "mixture", "max_train_samples")
"""Keys besides those of the adapter that always tell methods apart."""

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
    """Finished runs that differ only in their seed; ``metrics`` by task, then by name, one value for each run."""

    settings: dict[str, Any]
    runs: tuple[Run, ...]
    split: str
    metrics: dict[str, dict[str, list[float]]]

    def score(self, task: str, metric: str = "average_metrics") -> Score | None:
        """A metric of a task over the seeds; None where it was not measured."""
        values = self.metrics.get(task, {}).get(metric)
        return Score.of(values) if values else None


@dataclass(frozen=True)
class Method:
    """A row of the table: a name, a backbone, and the group of each task."""

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
        """To how many training rows a task is limited; None for all of them."""
        return self.settings.get("max_train_samples")

    def score(self, task: str) -> Score | None:
        """average_metrics of a task; None where no run is finished."""
        return self.groups[task].score(task) if task in self.groups else None

    def average(self) -> Score | None:
        """The mean over the tasks; its deviation is that of the seeds' own means over the tasks."""
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

    def mean(self, number: str, tasks: Iterable[str] | None = None) -> float | None:
        """The mean over runs of one of NUMBERS, on some tasks or on all; None where no run has it."""
        groups = {id(group): group for task, group in self.groups.items() if tasks is None or task in tasks}
        values = [NUMBERS[number](run.result) for group in groups.values() for run in group.runs]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


NUMBERS = {
    "trainable_parameters": lambda result: result.parameters.trainable_parameters,
    "share": lambda result: result.parameters.share,
    "adapter_bytes": lambda result: result.adapter_bytes,
    "step_ms": lambda result: _scaled(result.costs and result.costs.step_seconds_median, 1000),
    "peak_memory_mib": lambda result: _scaled(result.costs and result.costs.peak_memory_bytes, 2**-20),
}
"""What a run has besides metrics: milliseconds of a step, MiB at the peak."""


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def methods_of(runs: Sequence[Run]) -> list[Method]:
    """The methods among finished runs, the best average first, those with fewer tasks after those with more."""
    bases = defaultdict(list)
    for group in groups_of(runs):
        of_the_method = {
            key: value
            for key, value in group.settings.items()
            if key.startswith("adapter.") or key.startswith("adapter[") or key.partition(".")[0] in OF_THE_METHOD
        }
        bases[as_text(of_the_method)].append((of_the_method, group))

    rows: dict[str, tuple[dict[str, Any], dict[str, Group]]] = {}
    for members in bases.values():
        by_task = defaultdict(list)
        for _, group in members:
            for task in group.metrics:
                by_task[task].append(group.settings)
        telling = {key for settings in by_task.values() for key in differing(settings)}
        for of_the_method, group in members:
            settings = of_the_method | {key: group.settings[key] for key in sorted(telling) if key in group.settings}
            _, groups = rows.setdefault(as_text(settings), (settings, {}))
            groups |= dict.fromkeys(group.metrics, group)

    described = labels_of([settings for settings, _ in rows.values()])
    sweeps = [sweep_of(groups.values()) for _, groups in rows.values()]
    labels = [
        sweep if sweep and sweeps.count(sweep) == 1 else description
        for sweep, description in zip(sweeps, described, strict=True)
    ]
    methods = [
        Method(label, settings["model_name_or_path"], settings, groups)
        for label, (settings, groups) in zip(labels, rows.values(), strict=True)
    ]
    return sorted(methods, key=_rank)


def sweep_of(groups: Iterable[Group]) -> str | None:
    """The one experiment whose cells all these runs are, or None."""
    found = {run.sweep for group in groups for run in group.runs}
    return found.pop() if len(found) == 1 else None


def _rank(method: Method) -> tuple[str, int, float, str]:
    average = method.average()
    measured = sum(method.score(task) is not None for task in method.groups)
    return method.model, -measured, 0.0 if average is None else -average.mean, method.label


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """The groups among finished runs; a metric is that of the test split, else of the validation split."""
    grouped = defaultdict(list)
    for run in runs:
        if run.state == "finished":
            grouped[as_text(settings_of(run))].append(run)
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
    """The metrics of a split by task: those of a mixture are named <task>/<metric>."""
    by_task = defaultdict(dict)
    for name, value in result.metrics[split].items():
        task, slash, metric = name.partition("/")
        if slash:
            by_task[task][metric] = value
    return dict(by_task) or {result.task: result.metrics[split]}


def settings_of(run: Run) -> dict[str, Any]:
    """The configuration with dotted keys, without what may differ within a group and what is null."""
    return {
        key: value
        for key, value in flat(run.config).items()
        if value is not None and key.partition(".")[0] not in NOT_OF_THE_METHOD
    }


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted keys; a list of one adapter as the adapter, of more as adapter[0], adapter[1]."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            for index, part in enumerate(value):
                found |= flat(part, f"{prefix}{key}." if len(value) == 1 else f"{prefix}{key}[{index}].")
        else:
            found[prefix + key] = value
    return found


def differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The keys in which some of these settings differ, in their order."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({as_text(one.get(key)) for one in settings}) > 1]


def labels_of(settings: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each method: its kinds and ranks, and of those named alike the settings that tell them apart."""
    alike = defaultdict(list)
    for one in settings:
        alike[one.get("model_name_or_path"), short_label(one)].append(one)
    labels = []
    for one in settings:
        short = short_label(one)
        telling = [key for key in differing(alike[one.get("model_name_or_path"), short]) if not key.endswith(".rank")]
        labels.append(", ".join([short, *(f"{short_name(key)}={shown(one[key])}" for key in telling if key in one)]))
    return labels


def short_label(settings: dict[str, Any]) -> str:
    """Kinds and ranks, as "tt_lora r4 + layer_norm"."""
    parts = []
    for key, kind in settings.items():
        if key.startswith("adapter") and key.endswith("kind"):
            rank = settings.get(key.removesuffix("kind") + "rank")
            name = "full fine-tuning" if kind == "none" else kind
            parts.append(name if rank is None else f"{name} r{shown(rank)}")
    mixed = ["in a mixture"] if any(key.startswith("mixture.") for key in settings) else []
    return " ".join([" + ".join(parts), *mixed])


def short_name(key: str) -> str:
    return SHORT_NAMES.get(key, key.split(".")[-1])


def shown(value: Any) -> str:
    """A value in few characters."""
    if isinstance(value, list):
        return "-".join(shown(part) for part in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def as_text(value: Any) -> str:
    """JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True)
