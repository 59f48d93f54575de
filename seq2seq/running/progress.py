"""What runs in other processes have logged last, for the bar of the command that started them.

runs:  25%|##5       | 3/12 [00:54<02:32, rank-2__seed-1 step 40 loss 0.790, rank-5__seed-0 step 20 loss 3.615]
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from seq2seq.experiment import Experiment
from seq2seq.run_folder import RunFolder

LOGGED = re.compile(r": step (\d+): (\{.*\})$", re.MULTILINE)
"""A line of a run's log by ``TrackingCallback``: the step, and the values as JSON."""

TAIL = 2**14
"""Bytes at the end of a log that are read."""


def latest_loss(log: Path) -> tuple[int, float] | None:
    """The step and the training loss that a run logged last; None if there is none near the end of its log."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    for step, values in reversed(LOGGED.findall(text)):
        try:
            loss = json.loads(values).get("train/loss")
        except ValueError:
            continue
        if loss is not None:
            return int(step), loss
    return None


def latest_losses(cells: Sequence[Experiment]) -> str:
    """The latest loss of each of these runs that has one, on one line."""
    found = {cell.run.directory: latest_loss(RunFolder(cell.run.directory).log) for cell in cells}
    return ", ".join(f"{path.name} step {at[0]} loss {at[1]:.3f}" for path, at in found.items() if at is not None)
