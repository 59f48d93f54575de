"""The table of what the runs of a section were compared with: a row for each baseline, in the metric of the methods."""

from collections import defaultdict
from collections.abc import Sequence

from seq2seq.report.footnotes import Footnotes
from seq2seq.report.methods import Method, Score, metrics_by_task
from seq2seq.report.settings import workload_of
from seq2seq.report.tables import DASH, Table, task_metric, tasks_of

AVERAGE = "average_metrics"


def baseline_table(methods: Sequence[Method], digits: int = 4) -> Table | None:
    """Make the table; None if no run has measured a baseline.

    A baseline that depends on the method, such as a random backbone, has a row for each of them.
    """
    found = {(name, method.label): scores for method in methods for name, scores in scores_of(method).items()}
    if not found:
        return None
    tasks = tasks_of(methods)
    texts = {key: [text(scores.get(task, []), digits) for task in tasks] for key, scores in found.items()}
    rows, footnotes = {}, Footnotes()
    notes = {name: note for method in methods for name, note in workload_of(method.settings).baseline_notes.items()}
    for name in sorted({name for name, _ in texts}):
        title = name.replace("_", " ") + footnotes.mark(notes.get(name))
        of_methods = {label: cells for (n, label), cells in texts.items() if n == name}
        common = [{cell for cell in column if cell != DASH} for column in zip(*of_methods.values(), strict=True)]
        if all(len(cells) <= 1 for cells in common):
            rows[title] = [next(iter(cells), DASH) for cells in common]
        else:
            rows |= {f"{title} ({label})": cells for label, cells in of_methods.items()}
    header = ["baseline", *(f"{task} ({task_metric(methods, task)})" for task in tasks)]
    rows = [[title, *cells] for title, cells in sorted(rows.items())]
    return Table("Baselines", "Baselines", header, rows, footnotes.by_mark)


def scores_of(method: Method) -> dict[str, dict[str, list[float]]]:
    """The values of each baseline of a method by task, one for each run that has it."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for task, group in method.groups.items():
        for run in group.runs:
            for name, metrics in (run.result.baselines or {}).items():
                value = metrics_by_task(metrics, task, {}).get(task, {}).get(AVERAGE)
                if value is not None:
                    values[name][task].append(value)
    return values


def text(values: Sequence[float], digits: int) -> str:
    """The mean over runs, with the deviation if they differ."""
    if not values:
        return DASH
    score = Score.of(values)
    return score.text(digits) if score.std else f"{score.mean:.{digits}f}"
