"""A finished run of the workload ``swipe``, for what uses its model: the page, the export, measurements."""

import json
from dataclasses import dataclass
from pathlib import Path

import adapters
from adapters.validation import refuse
from seq2seq.errors import refusing
from seq2seq.run_folder import RunFolder
from seq2seq.running.predicting import read_run
from seq2seq.swipe.keys import SwipeKeys
from seq2seq.swipe.trainer import DEFAULT_WEIGHT
from third_party.models.swipe import SwipeForConditionalGeneration, SwipeForCTC


@dataclass(frozen=True)
class FinishedRun:
    """What a run leaves.

    Args:
        keys: of its JSON.
        model: in evaluation mode, its adapter merged.
        language_weight: factor of a word's log-frequency, the given one or that which the run chose.
    """

    keys: SwipeKeys
    model: SwipeForCTC | SwipeForConditionalGeneration
    language_weight: float

    @classmethod
    def open(cls, folder: str | Path) -> "FinishedRun":
        """Read the folder of a run.

        Raises:
            ConfigurationError: the folder has no finished run of the workload swipe.
        """
        run = RunFolder(Path(folder).absolute())
        experiment = read_run(run, ())
        keys = experiment.workload
        if not isinstance(keys, SwipeKeys):
            refuse("workload", "must be 'swipe'", repr(keys.name), "choose a run of that workload", f"the run {folder}")
        model = experiment.attach(experiment.load_model())
        with refusing("run", run.adapter):
            adapters.fit_ranks(model, run.adapter)
            adapters.load(model, run.adapter)
        return cls(keys, adapters.merge_and_unload(model).eval(), tuned_weight(run, keys))


def tuned_weight(run: RunFolder, keys: SwipeKeys) -> float:
    """The language weight of a run: the given one, or that which it chose."""
    if keys.options.language_weight is not None:
        return keys.options.language_weight
    metrics = json.loads(run.metrics.read_text())["metrics"] if run.metrics.is_file() else {}
    found = [values["language_weight"] for values in metrics.values() if "language_weight" in values]
    return found[0] if found else DEFAULT_WEIGHT
