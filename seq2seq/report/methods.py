"""Aggregate runs into methods.

    group     runs whose configurations differ only in the seed: a mean and a standard deviation
    method    groups with the same backbone, adapter and number of training rows on different tasks: one table row

Settings that vary between tasks (a longer target, another learning rate) do not split a method. If groups on the same
task differ in a setting, the setting distinguishes methods and appears in their names. Of several sweeps, a method
whose runs are all the runs of one of them has the name of that sweep. Your own files are a task of their own: runs are
compared if their results were measured on the same file.
"""

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seq2seq.report.collect import Run
from seq2seq.report.names import method_labels
from seq2seq.report.settings import (
    canonical_json,
    differing_keys,
    method_settings,
    settings_of,
    split_of,
    workload_of,
)
from seq2seq.report.task_names import task_names
from seq2seq.tasks.metric_names import mean_name


@dataclass(frozen=True)
class Score:
    """A metric over seeds: mean, standard deviation (n - 1 in the denominator; None for one run), number of runs."""

    mean: float
    std: float | None
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Score":
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def text(self, digits: int = 4) -> str:
        """The mean and the deviation with this many decimals."""
        return f"{self.mean:.{digits}f}" + ("" if self.std is None else f" ± {self.std:.{digits}f}")


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

    def by_seed(self, task: str) -> dict[int, float]:
        """average_metrics of a task by seed; the mean if several runs have one seed."""
        found = defaultdict(list)
        for run, value in zip(self.runs, self.metrics.get(task, {}).get("average_metrics", []), strict=False):
            found[run.seed].append(value)
        return {seed: statistics.fmean(values) for seed, values in found.items()}

    def metric_names(self, task: str) -> list[str]:
        """The metrics of a task of which average_metrics is the mean."""
        return [name for name in self.metrics.get(task, {}) if name not in (*workload_of(self.settings).flags, "loss")]

    def average_name(self, task: str) -> str:
        """What average_metrics of a task is called."""
        names = self.metric_names(task)
        return workload_of(self.settings).average_name(names) or mean_name(names)

    def note(self, task: str) -> str | None:
        """What a footnote says about a task's result that is 0 in every run; None for nothing."""
        measured = {name: values for name, values in self.metrics.get(task, {}).items() if values}
        lowest = {name: min(values) for name, values in measured.items()}  # of a flag, whether every run has it
        lowest |= {name: max(measured[name], key=abs) for name in measured.keys() & {"average_metrics"}}
        return workload_of(self.settings).note(lowest, "average_metrics")


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
        is_dense = not any(key.startswith("factorize") for key in self.settings)
        return self.settings.get("adapter.kind") == "none" and is_dense

    @property
    def train_rows(self) -> int | None:
        """The limit on the training rows of a task; None for all rows."""
        return self.settings.get("max_train_samples")

    def score(self, task: str) -> Score | None:
        """average_metrics of a task; None if no run is finished."""
        return self.groups[task].score(task) if task in self.groups else None

    def average(self, tasks: Collection[str] | None = None) -> Score | None:
        """The mean over some tasks, or all; its deviation is that of the per-seed means over the tasks."""
        tasks = self.groups if tasks is None else tasks
        scores = [score for score in map(self.score, tasks) if score is not None]
        if not scores:
            return None
        complete = list(self.by_seed(tasks).values())
        std = statistics.stdev(complete) if len(complete) > 1 else None
        return Score(statistics.fmean(score.mean for score in scores), std, len(complete))

    def by_seed(self, tasks: Collection[str]) -> dict[int, float]:
        """The mean of average_metrics over some tasks, for each seed with which all of them were run."""
        found = [self.groups[task].by_seed(task) if task in self.groups else {} for task in tasks]
        seeds = sorted(set.intersection(*(set(values) for values in found))) if found else []
        return {seed: statistics.fmean(values[seed] for values in found) for seed in seeds}

    def mean(self, cost: str, tasks: Iterable[str] | None = None) -> float | None:
        """The mean over runs of one of COSTS, on some tasks or on all; None if no run has it."""
        groups = {id(group): group for task, group in self.groups.items() if tasks is None or task in tasks}
        values = [COSTS[cost](run.result) for group in groups.values() for run in group.runs]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


COSTS = {
    "trainable_parameters": lambda result: result.parameters.without_head,
    "share": lambda result: result.parameters.without_head / result.parameters.base_parameters,
    "adapter_bytes": lambda result: result.adapter_bytes,
    "step_ms": lambda result: _scaled(result.costs and result.costs.step_seconds_median, 1000),
    "training_tensors_mib": lambda result: _scaled(result.costs and _sum_of(result.costs.memory_by_layer), 2**-20),
    "peak_memory_mib": lambda result: _scaled(result.costs and result.costs.peak_memory_bytes, 2**-20),
}
"""Measurements of a run besides its metrics: parameters without a head's, bytes on disk, ms per step, memory in MiB.

``training_tensors_mib`` is the sum of memory by layer, ``peak_memory_mib`` what the process (or the GPU) used at most.
"""


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _sum_of(layers: dict[str, dict[str, int | None]] | None) -> int | None:
    sizes = [size for row in (layers or {}).values() for size in row.values()]
    return None if not sizes or None in sizes else sum(sizes)


def methods_of(runs: Sequence[Run]) -> list[Method]:
    """Aggregate finished runs into methods: those with more tasks first, then by decreasing average."""
    bases = defaultdict(list)
    for group in groups_of(runs):
        settings = method_settings(group.settings)
        bases[canonical_json(settings)].append((settings, group))

    rows: dict[str, tuple[dict[str, Any], dict[str, Group]]] = {}
    for members in bases.values():
        by_task = defaultdict(list)
        for _, group in members:
            for task in group.metrics:
                by_task[task].append(group.settings)
        distinguishing = {key for settings in by_task.values() for key in differing_keys(settings)}
        for settings, group in members:
            extended = settings | {key: group.settings[key] for key in sorted(distinguishing) if key in group.settings}
            _, groups = rows.setdefault(canonical_json(extended), (extended, {}))
            groups |= dict.fromkeys(group.metrics, group)

    descriptions = method_labels([settings for settings, _ in rows.values()])
    sweeps = [common_sweep(groups.values()) for _, groups in rows.values()]
    several = len({*sweeps}) > 1
    tasks = {task for _, groups in rows.values() for task in groups}
    labels = [
        sweep if several and sweep and sweep not in tasks and sweeps.count(sweep) == 1 else description
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
    names = task_names(runs)
    grouped = defaultdict(list)
    for run in runs:
        if run.state == "finished":
            renamed = names[run.name]
            task = renamed.get(run.result.task, run.result.task)
            grouped[task, tuple(renamed.values()), canonical_json(settings_of(run))].append(run)
    groups = []
    for (task, *_), members in grouped.items():
        members.sort(key=lambda run: (run.seed, run.name))
        split = split_of(members)
        if split is not None:
            renamed = names[members[0].name]
            metrics = [metrics_by_task(run.result.metrics[split], task, renamed) for run in members]
            collected = {
                task: {
                    name: [values[task][name] for values in metrics]
                    for name in metrics[0][task]
                    if all(values.get(task, {}).get(name) is not None for values in metrics)
                }
                for task in metrics[0]
            }
            groups.append(Group(settings_of(members[0]), tuple(members), split, collected))
    return groups


def metrics_by_task(
    metrics: Mapping[str, float | None], task: str, renamed: Mapping[str, str]
) -> dict[str, dict[str, float | None]]:
    """Return the metrics of a split by task; those of a mixture are named <task>/<metric>."""
    by_task = defaultdict(dict)
    for name, value in metrics.items():
        one, slash, metric = name.partition("/")
        if slash:
            by_task[renamed.get(one, one)][metric] = value
    return dict(by_task) or {task: dict(metrics)}
