"""Outcomes of the runs that one command starts: finished, kept from before, or failed with a reason in one sentence."""

import contextlib
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from adapters import CheckpointError, ConfigurationError, MergeError
from adapters.tables import render_table
from seq2seq.experiment import Experiment
from seq2seq.report.collect import without_head
from seq2seq.report.footnotes import Footnotes
from seq2seq.report.page import write_comparison
from seq2seq.report.run_page import curve_name
from seq2seq.run_folder import RunFolder, write_json
from seq2seq.run_lock import owned

EXPECTED_ERRORS = (ConfigurationError, CheckpointError, MergeError, OSError)
"""Errors whose message is complete; for others the log has the traceback."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: its result, or the reason why it has none."""

    experiment: Experiment
    state: Literal["kept", "finished", "failed"]
    result: dict[str, Any] | None = None
    sentence: str = ""
    seconds: float | None = None


def sentence_of_status(status: int) -> str:
    """A sentence about an exit status without an error message."""
    if status == -signal.SIGKILL:
        return "The process was killed from outside, as the system does where memory runs out: try fewer jobs."
    if status < 0:
        return f"The process was ended by {signal.Signals(-status).name}: see the end of its log."
    return f"The process ended with status {status}: see the end of its log."


def sentence_of(error: Exception) -> str:
    """An error on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, EXPECTED_ERRORS) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def write_failure(cell: Experiment, sentence: str) -> None:
    """Write failure.json, if the folder is writable and free: the sentence, and the time in UTC."""
    folder = RunFolder(cell.run.directory)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with contextlib.suppress(OSError, ConfigurationError), owned(folder.directory):
        folder.open(cell)
        write_json(folder.failure, {"sentence": sentence, "time": now})


def cell_name(cell: Experiment) -> str:
    """The run folder and the one above it, which is that of its sweep."""
    return "/".join(cell.run.directory.parts[-2:])


def report_sweeps(outcomes: Sequence[Outcome]) -> list[str]:
    """Write the comparison of each sweep of which several runs have a result into its folder, and say where it is."""
    roots = Counter(o.experiment.run.directory.parent for o in outcomes if o.experiment.sweep and o.result is not None)
    written = []
    for root, count in roots.items():
        try:
            written += [write_comparison(root, root / "report")] if count > 1 else []
        except ConfigurationError as error:
            written.append(f"The sweep has no report of its own: {error}")
    return written


def compared_metrics(outcome: Outcome) -> tuple[str, dict[str, float | None]] | None:
    """The test split, or the validation split if there is no test, and its metrics; None for neither."""
    metrics = {} if outcome.result is None else outcome.result["metrics"]
    split = next((split for split in ("test", "validation") if split in metrics), None)
    return None if split is None else (split, metrics[split])


def cells_table(outcomes: Sequence[Outcome]) -> str:
    """A table of runs: name, state, metric, trainable parameters, seconds; below it footnotes and why runs failed."""
    rows, footnotes, metric_names = [], Footnotes(), set()
    for outcome in outcomes:
        compared, metric = compared_metrics(outcome), "-"
        if compared is not None:
            split, metrics = compared
            workload, value = outcome.experiment.workload, metrics["average_metrics"]
            metric_names.add(f"{split} {curve_name(outcome.experiment, metrics)}")
            mark = footnotes.mark(workload.note(metrics, "average_metrics"))
            metric = "not finite" if value is None else f"{value:.4f}{mark}"
        trainable = None if outcome.result is None else without_head(outcome.result["parameters"])
        rows.append(
            [
                cell_name(outcome.experiment),
                outcome.state,
                metric,
                "-" if trainable is None else f"{trainable:,}",
                "-" if outcome.seconds is None else f"{outcome.seconds:.1f}",
            ]
        )
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("finished", "kept", "failed")}
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    head = metric_names.pop() if len(metric_names) == 1 else "metric"
    table = render_table(f"Runs: {title}", ["run", "state", head, "trainable", "seconds"], rows)
    notes = [f"{mark} {note}" for mark, note in footnotes.by_mark.items()]
    failed = [f"{cell_name(o.experiment)}: {o.sentence}" for o in outcomes if o.state == "failed"]
    return "\n\n".join(filter(None, [table, "\n".join(notes), "\n".join(failed)]))
