"""What the tasks of runs are called, so that results are compared only if they were measured on the same rows.

    task_name=rte                                   rte
    test_file=data/reviews/test.tsv                 reviews, or what ``data_name`` says
    tasks.opinion.files.test=a.tsv, another b.tsv   "opinion on a", "opinion on b"; "opinion" if there is one file only

A relative path and an absolute one that ends with it are one file.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence

from seq2seq.report.collect import Run
from seq2seq.report.settings import is_same_path, measured_files
from seq2seq.tasks.data_names import data_set_names


def task_names(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """For each finished run, by its name: what its tasks are called, where that differs from what its result says."""
    finished = [run for run in runs if run.state == "finished"]
    measured = {run.name: measured_files(run) for run in finished}
    one = same_files(file for files in measured.values() for file in files.values())
    by_task = defaultdict(set)
    for run in finished:
        for task, file in measured[run.name].items():
            if task is not None or not run.config.get("data_name"):
                by_task[task].add(one[file])
    own = data_set_names(by_task.pop(None, ()))
    described = {task: data_set_names(files) for task, files in by_task.items() if len(files) > 1}
    known = {run.result.task for run in finished if None not in measured[run.name]}
    names = defaultdict(dict)
    for run in finished:
        for task, file in measured[run.name].items():
            if task in described:
                names[run.name][task] = f"{task} on {described[task][one[file]]}"
            elif task is None and one[file] in own and not run.config.get("data_name"):
                name = own[one[file]]
                names[run.name][run.result.task] = f"{name} (own files)" if name in known else name
    return {run.name: names[run.name] for run in finished}


def same_files(paths: Iterable[str]) -> dict[str, str]:
    """One path for each file: the absolute one of a relative path, if exactly one ends with it."""
    distinct = sorted({*paths})
    ends = {path: [other for other in distinct if other != path and is_same_path(path, other)] for path in distinct}
    return {path: others[0] if len(others) == 1 and not os.path.isabs(path) else path for path, others in ends.items()}
