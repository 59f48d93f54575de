"""An experiment from its configuration to its result.

    prepare     data, tokenizer, model, adapters: everything that can be refused is refused here, nothing is written
    train       from the start or from the last complete checkpoint
    evaluate    merged where all adapters are linear, on the validation and the test split, with predictions
    baselines   what the result has to be compared with
    report      metrics.json, curve, README, the table

``run_experiment`` does all of it and returns what metrics.json holds.
"""

import contextlib
import logging
from typing import Any

import adapters
from seq2seq.configuration.keys import Experiment
from seq2seq.extras.baselines import measure_baselines
from seq2seq.extras.expressivity import measure, record, source_pairs, summary
from seq2seq.report import write_report
from seq2seq.run_folder import RunFolder, read_json, write_json
from seq2seq.running.tracking import Tracker, TrackingCallback, log_report, make_tracker
from seq2seq.text.backbone import refusing
from seq2seq.text.preparation import Prepared, prepare
from seq2seq.text.training import make_trainer, merge_difference, predict
from third_party.trainers import Seq2SeqTrainer, last_complete_checkpoint

logger = logging.getLogger(__name__)


def run_experiment(experiment: Experiment) -> dict[str, Any]:
    """Run what the configuration asks for and return its result; what is finished is read from the run's folder.

    Raises:
        ConfigurationError: the configuration was refused, and nothing written.
        adapters.MergeError: training diverged, so that there is nothing finite to evaluate.
    """
    folder = RunFolder(experiment.run.directory)
    folder.check(experiment)
    if folder.is_finished(experiment):
        logger.warning("The run in %s is finished and kept; set overwrite=true to do it again.", folder.directory)
        return folder.read_result()
    prepared = prepare(experiment, folder.adapter)
    if experiment.run.measure_expressivity:
        source_pairs(prepared)  # refuses what cannot be measured
    main_process = prepared.arguments.process_index == 0
    with prepared.arguments.main_process_first(desc="opening the run's folder"):
        if main_process:
            with refusing("output_root", experiment.run.output_root):
                folder.open(experiment)
    tracker = make_tracker(experiment, folder.directory, main_process)
    with folder.logging() if main_process else contextlib.nullcontext():
        try:
            return _run(prepared, folder, tracker)
        finally:
            tracker.finish()


def _run(prepared: Prepared, folder: RunFolder, tracker: Tracker) -> dict[str, Any]:
    training = prepared.experiment.training
    trainer = make_trainer(prepared, prepared.model, prepared.arguments, folder.ranks)
    trainer.add_callback(TrackingCallback(tracker))
    main_process = trainer.is_world_process_zero()
    counts = adapters.summary(prepared.model)
    logger.info("%s", counts)
    if main_process and training["do_train"]:
        write_parameters(prepared, folder, counts)

    measuring = main_process and prepared.experiment.run.measure_expressivity
    lengths_before = measure(prepared) if measuring and training["do_train"] else None
    if training["do_train"]:
        checkpoint = last_complete_checkpoint(folder.checkpoints)
        if checkpoint is not None:
            logger.warning("Resuming from %s.", checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if main_process:
            adapters.save(prepared.model, folder.adapter)
        if prepared.experiment.run.rank_schedule is not None:
            counts = adapters.summary(prepared.model)
            write_parameters(prepared, folder, counts)

    metrics = {}
    for split, asked in (("validation", training["do_eval"]), ("test", training["do_predict"])):
        if asked and all(split in task.encoded for task in prepared.tasks.values()):
            metrics[split], predictions = predict(prepared, trainer, split)
            tracker.log({f"{split}/{name}": value for name, value in metrics[split].items()})
            if main_process:
                for name, texts in predictions.items():
                    suffix = split if len(predictions) == 1 else f"{split}_{name}"
                    folder.write_predictions(suffix, prepared.tasks[name].splits[split], texts)
    result = describe_result(prepared, folder, trainer, counts)
    result["metrics"] |= metrics
    result["baselines"] |= measure_baselines(prepared, folder)
    if measuring:
        result["expressivity"] = summary(record(folder, lengths_before, measure(prepared)))
    if main_process:
        write_report(folder, result, trainer.state.log_history)
        log_report(tracker, folder, result)
        folder.finish(result)
    return result


def write_parameters(prepared: Prepared, folder: RunFolder, counts: adapters.Summary) -> None:
    """What trains and why, by group, by layer, by parameter, as it is now."""
    freezing = [vars(row) for row in adapters.freezing_report(prepared.model).rows]
    write_json(folder.parameters, {**counts.to_dict(), "freezing": freezing})


def describe_result(
    prepared: Prepared, folder: RunFolder, trainer: Seq2SeqTrainer, counts: adapters.Summary
) -> dict[str, Any]:
    """What metrics.json holds but for new metrics; an earlier result of the same adapter is carried on."""
    run, trained = prepared.experiment.run, prepared.experiment.training["do_train"]
    before = folder.read_result() if folder.metrics.is_file() and not trained else {}
    weights = folder.adapter / adapters.WEIGHTS_NAME
    return {
        "experiment_name": run.experiment_name,
        "task": run.task_label,
        "model": run.model_name_or_path,
        "adapter": [config.to_dict() for config in prepared.experiment.adapters],
        "metrics": before.get("metrics", {}),
        "parameters": counts.to_dict(),
        "adapter_bytes": weights.stat().st_size if weights.is_file() else None,
        "merge_difference": merge_difference(prepared, trainer),
        "costs": trainer.measurement.to_dict() if trained else before.get("costs"),
        "baselines": before.get("baselines", {}),
        "expressivity": before.get("expressivity"),
        "ranks": read_json(folder.ranks)[-1] if folder.ranks.is_file() else None,
    }
