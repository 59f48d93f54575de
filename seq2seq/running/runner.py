"""An experiment from its configuration to its result.

    prepare     data, model, adapters: everything that can be refused is refused here, and nothing is written
    train       from the start or from the last complete checkpoint
    evaluate    on the validation and the test split, merged if all adapters are linear, with predictions
    extras      what the run adds to its result, such as baselines
    report      metrics.json, curve, README, the table

``run_experiment`` does all of it and returns what metrics.json holds.
"""

import contextlib
import logging
from typing import Any

import adapters
from adapters.sharded import is_sharded
from seq2seq.errors import refusing
from seq2seq.experiment import Experiment
from seq2seq.report import write_report
from seq2seq.run_folder import RunFolder, finite_metrics, write_json
from seq2seq.run_lock import is_main_process, owned
from seq2seq.run_log import held_records, logging_to
from seq2seq.running.preparation import prepare
from seq2seq.running.tracking import Tracker, TrackingCallback, log_report, make_tracker
from seq2seq.workload import Prepared
from third_party.trainers import AdapterTrainerMixin, last_complete_checkpoint

logger = logging.getLogger(__name__)

SAMPLE_ROWS = 8
"""Rows of each task on which merged and unmerged logits are compared."""


def run_experiment(experiment: Experiment) -> dict[str, Any]:
    """Run what the configuration asks for and return its result; a finished run is read from its folder.

    Raises:
        ConfigurationError: the configuration was refused, or another process uses the folder; nothing was written.
        adapters.MergeError: training diverged, so that there is nothing finite to evaluate.
    """
    folder = RunFolder(experiment.run.directory)
    folder.check_writable(experiment)
    with owned(folder.directory) if is_main_process() else contextlib.nullcontext():
        return _run_owned(experiment, folder)


def _run_owned(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    if is_main_process():  # whose refusal, said once, ends the others
        folder.check(experiment)
    if folder.is_finished(experiment):
        logger.warning("The run in %s is finished and kept; set overwrite=true to do it again.", folder.directory)
        return folder.read_result()
    with held_records() as held:
        prepared = prepare(experiment, folder.adapter)
    with prepared.arguments.main_process_first(desc="opening the run folder"):
        if prepared.is_main_process:
            with refusing("output_root", experiment.run.output_root):
                folder.open(experiment)
                for extra in experiment.extras:
                    extra.opened(experiment, prepared)
    tracker = make_tracker(experiment, folder, prepared.is_main_process)
    with logging_to(folder.log, held) if prepared.is_main_process else contextlib.nullcontext():
        try:
            return _run(experiment, prepared, folder, tracker)
        finally:
            tracker.finish()


def _run(experiment: Experiment, prepared: Prepared, folder: RunFolder, tracker: Tracker) -> dict[str, Any]:
    callbacks = [callback for extra in experiment.extras for callback in extra.callbacks(folder.directory)]
    trainer = experiment.make_trainer(prepared, callbacks)
    trainer.add_callback(TrackingCallback(tracker, trainer.measurement))
    logger.info("%s", adapters.summary(prepared.model))
    before = [None] * len(experiment.extras)
    if experiment.training["do_train"]:
        write_parameters(prepared, folder)
        before = [extra.before(experiment, prepared) for extra in experiment.extras]
        train(prepared, folder, trainer)
        write_parameters(prepared, folder)

    earlier = folder.read_result() if folder.metrics.is_file() and not experiment.training["do_train"] else {}
    metrics = evaluate(experiment, prepared, folder, trainer, tracker)
    result = describe_result(experiment, prepared, folder, trainer, earlier)
    result["metrics"] |= metrics
    for extra, measured in zip(experiment.extras, before, strict=True):
        result |= extra.after(experiment, prepared, folder.directory, measured, earlier)
    if prepared.is_main_process:
        write_report(experiment, folder, result, trainer.state.log_history)
        log_report(tracker, folder, result, experiment.extras)
        folder.finish(result)
    return result


def train(prepared: Prepared, folder: RunFolder, trainer: AdapterTrainerMixin) -> None:
    """Train from the last complete checkpoint, or from the start, and save the adapter."""
    checkpoint = last_complete_checkpoint(folder.checkpoints)
    if checkpoint is not None:
        logger.warning("Resuming from %s.", checkpoint)
    if trainer.eval_dataset is None:
        logger.warning("No checkpoint is chosen, as there are no validation rows: the last step's adapter is kept.")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if prepared.is_main_process or is_sharded(prepared.model):
        adapters.save(prepared.model, folder.adapter)


def evaluate(
    experiment: Experiment, prepared: Prepared, folder: RunFolder, trainer: AdapterTrainerMixin, tracker: Tracker
) -> dict[str, dict[str, float | None]]:
    """The metrics of each requested split, null if not finite; its rows are written as predictions."""
    metrics = {}
    for split, asked in (("validation", "do_eval"), ("test", "do_predict")):
        if experiment.training[asked] and split in experiment.workload.splits:
            values, rows = experiment.workload.evaluate(prepared, trainer, split)
            metrics[split] = finite_metrics(values)
            tracker.log({f"{split}/{name}": value for name, value in values.items()})
            if prepared.is_main_process:
                for name, records in rows.items():
                    folder.write_predictions(split if len(rows) == 1 else f"{split}_{name}", records)
    return metrics


def write_parameters(prepared: Prepared, folder: RunFolder) -> None:
    """What trains and why, by group, by layer, by parameter, as it is now."""
    if prepared.is_main_process:
        freezing = [vars(row) for row in adapters.freezing_report(prepared.model).rows]
        write_json(folder.parameters, {**adapters.summary(prepared.model).to_dict(), "freezing": freezing})


def describe_result(
    experiment: Experiment, prepared: Prepared, folder: RunFolder, trainer: AdapterTrainerMixin, earlier: dict[str, Any]
) -> dict[str, Any]:
    """The contents of metrics.json besides new metrics and extras; extends an earlier result of the same adapter."""
    weights = folder.adapter / adapters.WEIGHTS_NAME
    samples = experiment.workload.samples(prepared).values()
    return {
        "experiment_name": experiment.run.experiment_name,
        "task": experiment.workload.task_label,
        "model": experiment.workload.model_label,
        "adapter": [config.to_dict() for config in experiment.adapters],
        "metrics": earlier.get("metrics", {}),
        "parameters": adapters.summary(prepared.model).to_dict(),
        "adapter_bytes": weights.stat().st_size if weights.is_file() else None,
        "merge_difference": trainer.merge_difference(rows.take(min(SAMPLE_ROWS, len(rows))) for rows in samples),
        "costs": trainer.measurement.to_dict() if experiment.training["do_train"] else earlier.get("costs"),
    }
