"""The numbers of methods and runs: data frames for the CSV files, cells of text for the pages.

results_frame    a row for each method and task: mean, std, seeds, each metric, costs, ratios to full fine-tuning
runs_frame       a row for each run, whatever its state
method_cells     the table of one backbone: header and rows of text, a dash where there is nothing
"""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from seq2seq.report.collect import Run
from seq2seq.report.methods import NUMBERS, Method

RATIOS = ("trainable_parameters", "adapter_bytes", "step_ms", "peak_memory_mib")
"""Of NUMBERS, those that are compared with full fine-tuning."""

DASH = "–"


def tasks_of(methods: Iterable[Method]) -> list[str]:
    """Every task that some method was measured on."""
    return sorted({task for method in methods for task in method.groups})


def reference_of(method: Method, task: str, methods: Iterable[Method]) -> Method | None:
    """Full fine-tuning of the same backbone on the same task: on as many rows, else on the most."""
    full = [other for other in methods if other.is_full and other.model == method.model and task in other.groups]
    same = [other for other in full if other.train_rows == method.train_rows]
    return max(same or full, key=lambda other: math.inf if other.train_rows is None else other.train_rows, default=None)


def ratio(method: Method, number: str, task: str, methods: Sequence[Method]) -> float | None:
    """A number of a method over that of full fine-tuning; None where either is missing."""
    reference = reference_of(method, task, methods)
    own = method.mean(number, [task])
    other = None if reference is None else reference.mean(number, [task])
    return own / other if own is not None and other else None


def results_frame(methods: Sequence[Method]) -> pd.DataFrame:
    """A row for each method and task."""
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
                    **{number: method.mean(number, [task]) for number in NUMBERS},
                    **{f"{number}_to_full": ratio(method, number, task, methods) for number in RATIOS},
                    **{
                        f"metric_{name}": group.score(task, name).mean
                        for name, values in group.metrics[task].items()
                        if values
                    },
                }
            )
    return pd.DataFrame(rows).convert_dtypes()


def runs_frame(runs: Sequence[Run], methods: Sequence[Method]) -> pd.DataFrame:
    """A row for each run."""
    labels = {run.name: method.label for method in methods for group in method.groups.values() for run in group.runs}
    rows = []
    for run in runs:
        row = {
            "run": run.name,
            "state": run.state,
            "method": labels.get(run.name),
            "model": run.config.get("model_name_or_path"),
            "task": run.config.get("task_name") if run.result is None else run.result.task,
            "seed": run.seed,
            "train_rows": run.config.get("max_train_samples"),
            "why": run.sentence or None,
        }
        if run.result is not None:
            row |= {number: read(run.result) for number, read in NUMBERS.items()}
            for split, values in run.result.metrics.items():
                row |= {f"{split}_{name}": value for name, value in values.items()}
        rows.append(row)
    return pd.DataFrame(rows).convert_dtypes()


def method_cells(methods: Sequence[Method], everything: Sequence[Method]) -> tuple[list[str], list[list[str]]]:
    """The table of the methods of one backbone; ``everything`` is where full fine-tuning is looked for."""
    tasks = tasks_of(methods)
    average = ["average"] if len(tasks) > 1 else []
    header = ["", "method", *tasks, *average, "trainable", "share", "adapter bytes", "ms a step", "peak MiB"]
    compared = any(reference_of(method, task, everything) for method in methods for task in method.groups)
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
        row += [formatted(method.mean(number), form) for number, form in formats.items()]
        if compared:
            row += [formatted(mean_ratio(method, number, everything), ".3g") for number in RATIOS]
        rows.append(row)
    return header, rows


def mean_ratio(method: Method, number: str, methods: Sequence[Method]) -> float | None:
    """The mean over a method's tasks of its ratio to full fine-tuning, where that was run."""
    ratios = [ratio(method, number, task, methods) for task in method.groups]
    known = [value for value in ratios if value is not None]
    return sum(known) / len(known) if known else None


def formatted(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)
