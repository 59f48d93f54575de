"""Everything a run needs, loaded and checked before anything is written: data, model, adapters."""

import logging
from pathlib import Path

import adapters
from adapters import ConfigurationError
from seq2seq.errors import refusing
from seq2seq.experiment import Experiment
from seq2seq.running.tracking import check_tracking
from seq2seq.running.trial import check_by_trial
from seq2seq.workload import Prepared

logger = logging.getLogger(__name__)


def prepare(experiment: Experiment, trained: Path | None) -> Prepared:
    """Load and check everything; writes nothing.

    Args:
        experiment: the checked configuration.
        trained: the adapter of the run folder, which may not exist yet; a run that does not train starts from it.

    Raises:
        ConfigurationError: one sentence about the mismatch.
    """
    check_tracking(experiment)
    arguments = experiment.training_arguments()
    if arguments.n_gpu > 1:
        raise ConfigurationError(
            f"One process drives one GPU; got {arguments.n_gpu} visible GPUs: start the run with torchrun "
            f"--nproc_per_node {arguments.n_gpu}, or choose one GPU by CUDA_VISIBLE_DEVICES."
        )
    data = experiment.workload.load_data(arguments)
    model = experiment.attach(experiment.load_model())
    prepared = Prepared(model, data, arguments)
    start_adapters(experiment, prepared, trained)
    check_by_trial(experiment, prepared)
    for extra in experiment.extras:
        extra.check_prepared(experiment, prepared)
    return prepared


def start_adapters(experiment: Experiment, prepared: Prepared, trained: Path | None) -> None:
    """Load the adapter that the run starts from, if it starts from a saved one."""
    start_from = experiment.run.adapter_path
    if start_from is None and not experiment.training["do_train"]:
        start_from = str(trained) if trained is not None and trained.is_dir() else None
        if start_from is None:
            logger.warning("Nothing is trained and no adapter_path is given: the adapter is evaluated as initialised.")
    if start_from is not None:
        with refusing("adapter_path", start_from):
            adapters.fit_ranks(prepared.model, start_from)
            adapters.load(prepared.model, start_from)
