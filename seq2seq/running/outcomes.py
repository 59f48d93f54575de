"""Outcomes of the runs that one command starts: finished, kept from before, or failed with a reason in one sentence."""

import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from adapters import CheckpointError, ConfigurationError, MergeError
from adapters.tables import render_table
from seq2seq.experiment import Experiment
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


def main_metric(result: dict[str, Any]) -> float | None:
    """average_metrics on the test split, else on the validation split."""
    split = next((split for split in ("test", "validation") if split in result["metrics"]), None)
    return None if split is None else result["metrics"][split]["average_metrics"]


def cells_table(outcomes: Sequence[Outcome]) -> str:
    """A table of runs: name, state, metric, trainable parameters, seconds; below it the reasons of failures."""
    rows = []
    for outcome in outcomes:
        metric = None if outcome.result is None else main_metric(outcome.result)
        trainable = None if outcome.result is None else outcome.result["parameters"]["trainable_parameters"]
        rows.append(
            [
                cell_name(outcome.experiment),
                outcome.state,
                "-" if metric is None else f"{metric:.4f}",
                "-" if trainable is None else f"{trainable:,}",
                "-" if outcome.seconds is None else f"{outcome.seconds:.1f}",
            ]
        )
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("finished", "kept", "failed")}
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    table = render_table(f"Runs: {title}", ["run", "state", "metric", "trainable", "seconds"], rows)
    failed = [f"{cell_name(o.experiment)}: {o.sentence}" for o in outcomes if o.state == "failed"]
    return "\n".join([table, *([""] if failed else []), *failed])
