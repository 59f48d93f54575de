"""What becomes of runs that one command starts: finished, kept from before, or failed for a reason in one sentence."""

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

EXPECTED_ERRORS = (ConfigurationError, CheckpointError, MergeError, OSError)
"""Errors whose text says all; of others the log has the traceback."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its result where it has one, else the sentence that says why not."""

    experiment: Experiment
    state: Literal["kept", "finished", "failed"]
    result: dict[str, Any] | None = None
    sentence: str = ""
    seconds: float | None = None


def how_it_ended(status: int) -> str:
    """A sentence about an exit status that no error explains."""
    if status == -signal.SIGKILL:
        return "The process was killed from outside, as the system does where memory runs out: try fewer jobs."
    if status < 0:
        return f"The process was ended by {signal.Signals(-status).name}: its log has what it said last."
    return f"The process ended with status {status}: its log has what it said last."


def sentence_of(error: Exception) -> str:
    """What went wrong, on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, EXPECTED_ERRORS) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def note_failure(cell: Experiment, sentence: str) -> None:
    """Write failure.json, where its folder can be written to: the sentence, and the time in UTC."""
    folder = RunFolder(cell.run.directory)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with contextlib.suppress(OSError):
        folder.open(cell)
        write_json(folder.failure, {"sentence": sentence, "time": now})


def cell_name(cell: Experiment) -> str:
    """A run's folder and the one above it, which is that of its sweep."""
    return "/".join(cell.run.directory.parts[-2:])


def main_metric(result: dict[str, Any]) -> float | None:
    """average_metrics on the test split, else on the validation split."""
    split = next((split for split in ("test", "validation") if split in result["metrics"]), None)
    return None if split is None else result["metrics"][split]["average_metrics"]


def cells_table(outcomes: Sequence[Outcome]) -> str:
    """Name, state, metric, trainable parameters and seconds of each run, and why the failed ones failed."""
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
