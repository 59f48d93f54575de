"""A finished run of the workload ``swipe``, for what uses its model: the page, the export, measurements."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

import adapters
from adapters.validation import refuse
from seq2seq.errors import refusing
from seq2seq.experiment import Experiment
from seq2seq.run_folder import RunFolder
from seq2seq.running.predicting import read_run
from seq2seq.swipe.keys import SwipeKeys
from third_party.models.swipe import SwipeForConditionalGeneration, SwipeForCTC


@dataclass(frozen=True)
class FinishedRun:
    """What a run leaves.

    Args:
        keys: of its JSON.
        model: in evaluation mode, its adapter merged, unless layouts have adapters of their own.
    """

    keys: SwipeKeys
    model: SwipeForCTC | SwipeForConditionalGeneration

    @property
    def language_weight(self) -> float:
        """The factor of a word's log-frequency, the given one or that which the run chose."""
        return self.keys.options.language_weight

    def check_merged(self) -> None:
        """Refuse adapters by layout, for what saves one model.

        Raises:
            ConfigurationError: it names the key.
        """
        if self.keys.adapters_per_layout:
            rule, given = "is false in a run that is saved as one model", "true"
            refuse("adapters_per_layout", rule, given, "train each layout in a run of its own", "the run")

    @classmethod
    def open(cls, folder: str | Path) -> "FinishedRun":
        """Read the folder of a run.

        Raises:
            ConfigurationError: the folder has no finished run of the workload swipe.
        """
        experiment, model = experiment_and_model(folder)
        keys = experiment.workload
        return cls(keys, (model if keys.adapters_per_layout else adapters.merge_and_unload(model)).eval())


def experiment_and_model(folder: str | Path) -> tuple[Experiment, nn.Module]:
    """The experiment of a finished run of the workload swipe, and its model with its adapters, not merged.

    Raises:
        ConfigurationError: the folder has no such run.
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
    return experiment, model
