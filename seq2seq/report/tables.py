"""Tables of methods and runs: data frames for the CSV files, cells of text for the pages.

results_frame       a row per method and task: mean, std, seeds, each metric, costs, ratios, the paired difference
runs_frame          a row per run, whatever its state
method_table        the table of one backbone: a header and rows of text, a dash for missing values, footnotes
difference_table    paired differences to one method of that table
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from seq2seq.report.collect import Run
from seq2seq.report.footnotes import Footnotes
from seq2seq.report.methods import COSTS, Method
from seq2seq.report.paired import paired_difference, reference_of

RATIOS = ("trainable_parameters", "adapter_bytes", "step_ms", "peak_memory_mib")
"""The COSTS that are compared with full fine-tuning."""

DASH = "–"


@dataclass(frozen=True)
class Table:
    """A table of text: its title on a page, its caption in a paper, header and rows, and footnotes by mark."""

    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: dict[str, str] = field(default_factory=dict)


def tasks_of(methods: Iterable[Method]) -> list[str]:
    """Return every task that some method was evaluated on."""
    return sorted({task for method in methods for task in method.groups})


def full_fine_tuning_of(method: Method, task: str, methods: Iterable[Method]) -> Method | None:
    """Return full fine-tuning of the same backbone on the same task: on equally many rows, else on the most rows."""
    full = [other for other in methods if other.is_full and other.model == method.model and task in other.groups]
    same = [other for other in full if other.train_rows == method.train_rows]
    return max(same or full, key=lambda other: math.inf if other.train_rows is None else other.train_rows, default=None)


def ratio(method: Method, cost: str, task: str, methods: Sequence[Method]) -> float | None:
    """Return a method's cost relative to full fine-tuning; None if either is missing."""
    reference = full_fine_tuning_of(method, task, methods)
    value = method.mean(cost, [task])
    full = None if reference is None else reference.mean(cost, [task])
    return value / full if value is not None and full else None


def rivals_of(method: Method, methods: Sequence[Method]) -> list[Method]:
    """The methods of one table: on the same backbone and number of training rows."""
    return [other for other in methods if (other.model, other.train_rows) == (method.model, method.train_rows)]


def results_frame(methods: Sequence[Method], reference: str | None = None) -> pd.DataFrame:
    """Make a row per method and task; differences are to the method of the label ``reference``, or to the best one."""
    rows = []
    for method in methods:
        compared = reference_of(rivals_of(method, methods), reference)
        for task, group in method.groups.items():
            score = method.score(task)
            difference = paired_difference(method, compared, [task])
            rows.append(
                {
                    "model": method.model,
                    "method": method.label,
                    "task": task,
                    "train_rows": method.train_rows,
                    "split": group.split,
                    "seeds": len(group.runs),
                    "mean": None if score is None else score.mean,
                    "std": None if score is None else score.std,
                    "reference": compared.label,
                    "difference": None if difference is None else difference.mean,
                    "difference_standard_error": None if difference is None else difference.standard_error,
                    "difference_pairs": None if difference is None else difference.pairs,
                    **{cost: method.mean(cost, [task]) for cost in COSTS},
                    **{f"{cost}_to_full": ratio(method, cost, task, methods) for cost in RATIOS},
                    **{
                        f"metric_{name}": group.score(task, name).mean
                        for name, values in group.metrics[task].items()
                        if values
                    },
                }
            )
    return pd.DataFrame(rows).convert_dtypes()


def runs_frame(runs: Sequence[Run], methods: Sequence[Method]) -> pd.DataFrame:
    """Make a row per run."""
    labels = {run.name: method.label for method in methods for group in method.groups.values() for run in group.runs}
    rows = []
    for run in runs:
        row = {
            "run": run.name,
            "state": run.state,
            "method": labels.get(run.name),
            "model": run.config.get("model_name_or_path") if run.result is None else run.result.model,
            "task": run.config.get("task_name") if run.result is None else run.result.task,
            "seed": run.seed,
            "train_rows": run.config.get("max_train_samples"),
            "why": run.sentence or None,
        }
        if run.result is not None:
            row |= {cost: read(run.result) for cost, read in COSTS.items()}
            for split, values in run.result.metrics.items():
                row |= {f"{split}_{name}": value for name, value in values.items()}
        rows.append(row)
    return pd.DataFrame(rows).convert_dtypes()


def method_table(title: str, methods: Sequence[Method], all_methods: Sequence[Method], digits: int = 4) -> Table:
    """Make the table of the methods of one backbone; full fine-tuning is looked up in ``all_methods``.

    Args:
        title: which training rows they have.
        digits: decimals of metrics.
    """
    tasks = tasks_of(methods)
    heads = [f"{task} ({task_metric(methods, task)})" for task in tasks]
    average = ["average"] if len(tasks) > 1 else []
    header = ["", "method", "seeds", *heads, *average, "trainable parameters", "share", "adapter bytes"]
    header += ["ms per step", "training tensors MiB", "peak MiB"]
    compared = any(full_fine_tuning_of(method, task, all_methods) for method in methods for task in method.groups)
    header += ["parameters ×", "bytes ×", "time ×", "memory ×"] if compared else []
    rows, footnotes = [], Footnotes()
    for place, method in enumerate(methods, 1):
        scores = {task: method.score(task) for task in tasks}
        row = [str(place), method.label, seeds_of([method])]
        for task, score in scores.items():
            note = None if score is None else method.groups[task].note(task)
            row.append(DASH if score is None else f"{score.text(digits)}{footnotes.mark(note)}")
        if average:
            score, found = method.average(), sum(score is not None for score in scores.values())
            whole = DASH if score is None else score.text(digits)
            row.append(whole if found in (0, len(tasks)) else f"{whole} ({found} of {len(tasks)})")
        formats = {"trainable_parameters": ",.0f", "share": ".3%", "adapter_bytes": ",.0f"}
        formats |= {"step_ms": ",.1f", "training_tensors_mib": ",.1f", "peak_memory_mib": ",.0f"}
        row += [format_cell(method.mean(cost), form) for cost, form in formats.items()]
        if compared:
            row += [format_cell(mean_ratio(method, cost, all_methods), ".3g") for cost in RATIOS]
        rows.append(row)
    seeds = seeds_of(methods)
    spread = "one seed" if seeds == "1" else f"mean ± standard deviation over {seeds} seeds"
    caption = f"{split_name(methods)} metric, {spread}"
    return Table(title, caption, header, rows, footnotes.by_mark)


def seeds_of(methods: Iterable[Method]) -> str:
    """The number of runs behind each result: "3", or "2–3" if it differs between methods or tasks."""
    counts = sorted({len(group.runs) for method in methods for group in method.groups.values()})
    return "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


def split_name(methods: Iterable[Method]) -> str:
    """The split on which these methods were measured."""
    splits = {group.split for method in methods for group in method.groups.values()}
    return " or ".join(sorted(splits)).capitalize()


def difference_table(methods: Sequence[Method], reference: str | None = None, digits: int = 4) -> Table | None:
    """Make the table of paired differences to one of these methods; None if no other has a seed in common with it."""
    compared = reference_of(methods, reference)
    tasks = tasks_of(methods)
    header = ["method", *tasks, *(["average"] if len(tasks) > 1 else [])]
    columns = [[task] for task in tasks] + ([tasks] if len(tasks) > 1 else [])
    rows = []
    for method in methods:
        differences = [paired_difference(method, compared, column) for column in columns]
        if method is not compared and any(differences):
            rows.append([method.label, *(DASH if found is None else found.text(digits) for found in differences)])
    title = f"Paired differences to {compared.label}"
    caption = f"{title} in the {split_name(methods).lower()} metric, mean ± standard error (number of seeds)"
    return Table(title, caption, header, rows) if rows else None


def task_metric(methods: Sequence[Method], task: str) -> str:
    """The name of a task's metric."""
    group = next((method.groups[task] for method in methods if task in method.groups), None)
    return "metric" if group is None else group.average_name(task)


def mean_ratio(method: Method, cost: str, methods: Sequence[Method]) -> float | None:
    """Return the mean ratio to full fine-tuning over the tasks of a method for which it was run."""
    ratios = [ratio(method, cost, task, methods) for task in method.groups]
    known = [value for value in ratios if value is not None]
    return sum(known) / len(known) if known else None


def format_cell(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def average_name(methods: Sequence[Method], tasks: Sequence[str]) -> str:
    """The name of a method's average over tasks."""
    names = {task_metric(methods, task) for task in tasks}
    name = names.pop() if len(names) == 1 else "metric"
    return name if len(tasks) == 1 else f"{name}, mean of {len(tasks)} tasks"


def heading(methods: Sequence[Method], tasks: Sequence[str]) -> str:
    """The title of a plot: its task, and the number of training rows of its methods."""
    return f"{tasks[0] if len(tasks) == 1 else 'mean over tasks'}, {rows_heading(methods)}"


def rows_heading(methods: Sequence[Method]) -> str:
    """The number of training rows of the methods of a plot, in words."""
    rows = methods[0].train_rows
    return f"{rows:,} training rows" if rows else "all training rows"
