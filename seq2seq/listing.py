"""What a configuration can name: the tables that ``run_seq2seq.py --list`` prints, each made from its registry."""

import inspect
from collections.abc import Iterator

from adapters import AdapterConfig
from adapters.tables import render_table
from seq2seq.extras.baselines import OF_EVERY_WORKLOAD
from seq2seq.tasks.metric_classes import METRICS
from seq2seq.tasks.metric_names import metric_name
from seq2seq.tasks.registry import TASKS
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.workload import WORKLOADS, workload_class
from t3nsor import FORMATS

MOST_LABELS = 4
"""Labels of a task that are written out."""


def list_names() -> str:
    """The tables of all registries, below each other."""
    return "\n\n".join(tables())


def tables() -> Iterator[str]:
    """A table for each registry: the names, and a line about each."""
    kinds = [[kind, summary_of(config)] for kind, config in AdapterConfig.kinds.items()]
    yield render_table('Kinds of adapters: "adapter": {"kind": ...}', ["kind", ""], kinds)
    formats = [[name, summary_of(network)] for name, network in FORMATS.items()]
    yield render_table('Tensor formats: "adapter": {"kind": "tt_lora", "format": ...}', ["format", ""], formats)
    tasks = [[name, ", ".join(task.metrics), answers_of(task), rows_of(task)] for name, task in TASKS.items()]
    yield render_table('Tasks: "task_name": ...', ["task", "metrics", "answers", "rows"], tasks)
    metrics = [[name, metric_name(name), summary_of(metric)] for name, metric in METRICS.items()]
    yield render_table('Metrics: "tasks": {<name>: {"metrics": [...]}}', ["metric", "name", ""], metrics)
    yield render_table('Baselines: "baselines": [...]', ["baseline", "", "workload"], [*baselines()])
    workloads = [[name, summary_of(workload_class(name))] for name in WORKLOADS]
    yield render_table('Workloads: "workload": ...', ["workload", ""], workloads)


def summary_of(thing: type) -> str:
    """The first sentence of a class's own docstring, as plain text; empty if it has none."""
    paragraph = inspect.cleandoc(vars(thing).get("__doc__") or "").partition("\n\n")[0]
    return " ".join(paragraph.replace("`", "").split())


def baselines() -> Iterator[list[str]]:
    """The name of each baseline, what it predicts, and the workload whose runs can have it."""
    for name in WORKLOADS:
        for baseline, found in workload_class(name)().baselines().items():
            yield [baseline, found.label, name]
    for baseline, (label, _) in OF_EVERY_WORKLOAD.items():
        yield [baseline, label.format("no adapter, or a trained head"), "all"]


def answers_of(task: TaskSpec) -> str:
    """The labels of a task if they are few, else what they are."""
    if task.labels is None:
        return "free text"
    if len(task.labels) > MOST_LABELS:
        return f"{len(task.labels)} labels, {task.labels[0]} to {task.labels[-1]}"
    return ", ".join(task.labels)


def rows_of(task: TaskSpec) -> str:
    """Where the rows come from unless ``data_dir`` is given."""
    return "ship with the project" if task.hub is None else "/".join(task.hub)
