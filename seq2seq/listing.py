"""What a configuration can name: the tables that ``run_seq2seq.py --list`` prints, each made from its registry."""

import inspect
from collections.abc import Iterator

from adapters import AdapterConfig
from adapters.tables import render_table
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
    workloads = [[name, summary_of(workload_class(name))] for name in WORKLOADS]
    yield render_table('Workloads: "workload": ...', ["workload", ""], workloads)


def summary_of(thing: type) -> str:
    """The first line of a class's own docstring; empty if it has none."""
    return (inspect.cleandoc(vars(thing).get("__doc__") or "").splitlines() or [""])[0]


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
