"""Tables of methods and runs: data frames for the CSV files, cells of text for the pages.

results_frame    a row per method and task: mean, std, seeds, each metric, costs, ratios to full fine-tuning
runs_frame       a row per run, whatever its state
method_cells     the table of one backbone: a header and rows of text, a dash for missing values
"""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from seq2seq.report.collect import Run
from seq2seq.report.methods import COSTS, Method

RATIOS = ("trainable_parameters", "adapter_bytes", "step_ms", "peak_memory_mib")
"""The COSTS that are compared with full fine-tuning."""

DASH = "–"


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


def results_frame(methods: Sequence[Method]) -> pd.DataFrame:
    """Make a row per method and task."""
    rows = []
    for method in methods:
        for task, group in method.groups.items():
            score = method.score(task)
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


def method_cells(methods: Sequence[Method], all_methods: Sequence[Method]) -> tuple[list[str], list[list[str]]]:
    """Make the table of the methods of one backbone; full fine-tuning is looked up in ``all_methods``."""
    tasks = tasks_of(methods)
    average = ["average"] if len(tasks) > 1 else []
    header = ["", "method", *tasks, *average, "trainable parameters", "share", "adapter bytes"]
    header += ["ms per step", "peak MiB"]
    compared = any(full_fine_tuning_of(method, task, all_methods) for method in methods for task in method.groups)
    header += ["parameters ×", "bytes ×", "time ×", "memory ×"] if compared else []
    rows = []
    for place, method in enumerate(methods, 1):
        scores = [method.score(task) for task in tasks]
        row = [str(place), method.label, *(DASH if score is None else str(score) for score in scores)]
        if average:
            score, found = method.average(), sum(score is not None for score in scores)
            whole = DASH if score is None else str(score)
            row.append(whole if found in (0, len(tasks)) else f"{whole} ({found} of {len(tasks)})")
        formats = {"trainable_parameters": ",.0f", "share": ".3%", "adapter_bytes": ",.0f"}
        formats |= {"step_ms": ",.1f", "peak_memory_mib": ",.0f"}
        row += [format_cell(method.mean(cost), form) for cost, form in formats.items()]
        if compared:
            row += [format_cell(mean_ratio(method, cost, all_methods), ".3g") for cost in RATIOS]
        rows.append(row)
    return header, rows


def mean_ratio(method: Method, cost: str, methods: Sequence[Method]) -> float | None:
    """Return the mean ratio to full fine-tuning over the tasks of a method for which it was run."""
    ratios = [ratio(method, cost, task, methods) for task in method.groups]
    known = [value for value in ratios if value is not None]
    return sum(known) / len(known) if known else None


def format_cell(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)
