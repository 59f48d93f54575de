"""An experiment from its configuration to its result.

    prepare     data, tokenizer, model, adapters: everything that can be refused is refused here, nothing is written
    train       from the start or from the last complete checkpoint
    evaluate    merged, on the validation and the test split, with predictions
    baselines   what the result has to be compared with
    report      metrics.json, curve, README, the table

``run_experiment`` does all of it and returns what metrics.json holds.
"""

import contextlib
import copy
import json
import logging
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
    set_seed,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

import adapters
from adapters import ConfigurationError
from seq2seq import baselines
from seq2seq.arguments import Experiment
from seq2seq.backbone import load_backbone, load_tokenizer, refusing
from seq2seq.data import load_files, load_splits, tokenize
from seq2seq.metrics import split_metrics
from seq2seq.report import write_report
from seq2seq.run_folder import RunFolder, read_json, write_json, write_text
from seq2seq.splits import limit_rows
from seq2seq.tasks import OWN_FILES, TaskSpec, get_task
from seq2seq.tracking import Tracker, TrackingCallback, check_wandb, make_tracker
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.trainers import Seq2SeqTrainer, last_complete_checkpoint

logger = logging.getLogger(__name__)


@dataclass
class Prepared:
    """What a run needs, loaded and checked."""

    experiment: Experiment
    arguments: Seq2SeqTrainingArguments
    spec: TaskSpec
    splits: DatasetDict
    encoded: DatasetDict
    tokenizer: PreTrainedTokenizerBase
    model: T5ForConditionalGeneration


def prepare(experiment: Experiment, folder: RunFolder) -> Prepared:
    """Load and check everything; writes nothing.

    Raises:
        ConfigurationError: one sentence about what does not fit.
    """
    run = experiment.run
    check_wandb(experiment)
    arguments = experiment.training_arguments()
    if arguments.n_gpu > 1:
        raise ConfigurationError(
            f"One process drives one GPU; this one sees {arguments.n_gpu}: start the run with torchrun "
            f"--nproc_per_node {arguments.n_gpu}, or choose one GPU by CUDA_VISIBLE_DEVICES."
        )
    spec = OWN_FILES if run.task_name is None else get_task(run.task_name)
    if "bag_of_words" in run.baselines and spec.labels is None:
        raise ConfigurationError(
            "Key 'baselines' has a bag of words for tasks with labels only; the targets here are free text: drop it."
        )
    limits = {"train": run.max_train_samples, "validation": run.max_validation_samples, "test": run.max_test_samples}
    key = "train_file, validation_file or test_file" if run.files else "task_name"
    with refusing(key, ", ".join(run.files.values()) or run.task_name):
        splits = (
            load_files(run.files) if run.files else load_splits(spec, data_dir=run.data_dir, data_seed=run.data_seed)
        )
    for split, limit in limits.items():
        if split in splits:
            with refusing(f"max_{split}_samples", str(limit)):
                splits = limit_rows(splits, {split: limit}, run.data_seed)
    tokenizer = load_tokenizer(experiment)
    encoded = DatasetDict(
        {
            split: tokenize(rows, tokenizer, run.max_source_length, run.max_target_length)[0].select_columns(
                ["input_ids", "labels"]
            )
            for split, rows in splits.items()
        }
    )
    set_seed(arguments.seed)
    model = load_backbone(experiment)
    adapters.attach(model, list(experiment.adapters))
    if (path := trained_adapter(experiment, folder)) is not None:
        with refusing("adapter_path", path):
            adapters.load(model, path)
    return Prepared(experiment, arguments, spec, splits, encoded, tokenizer, model)


def trained_adapter(experiment: Experiment, folder: RunFolder) -> str | None:
    """Where the adapter to start from is: ``adapter_path``, or for a run that does not train the folder's own."""
    if experiment.run.adapter_path is not None or experiment.training["do_train"]:
        return experiment.run.adapter_path
    if folder.adapter.is_dir():
        return str(folder.adapter)
    logger.warning("Nothing is trained and no adapter_path is given: the adapter is evaluated as it starts.")
    return None


def run_experiment(experiment: Experiment) -> dict[str, Any]:
    """Run what the configuration asks for and return its result; a finished run's result is read from its folder."""
    folder = RunFolder(experiment.run.directory)
    folder.check(experiment)
    if folder.is_finished and not experiment.run.overwrite:
        logger.warning("The run in %s is finished and kept; set overwrite=true to do it again.", folder.directory)
        return read_json(folder.metrics)
    prepared = prepare(experiment, folder)
    main_process = prepared.arguments.process_index == 0
    with prepared.arguments.main_process_first(desc="opening the run's folder"):
        if main_process:
            folder.open(experiment)
    tracker = make_tracker(experiment, folder.directory, main_process)
    with folder.logging() if main_process else contextlib.nullcontext():
        try:
            return _run(prepared, folder, tracker)
        finally:
            tracker.finish()


def _run(prepared: Prepared, folder: RunFolder, tracker: Tracker) -> dict[str, Any]:
    run, training = prepared.experiment.run, prepared.experiment.training
    trainer = make_trainer(prepared, prepared.model, prepared.arguments)
    trainer.add_callback(TrackingCallback(tracker))
    main_process = trainer.is_world_process_zero()
    counts = adapters.summary(prepared.model)
    if main_process:
        write_json(folder.parameters, {**counts.to_dict(), "freezing": freezing_rows(prepared.model)})

    if training["do_train"]:
        checkpoint = last_complete_checkpoint(folder.checkpoints)
        if checkpoint is not None:
            logger.warning("Resuming from %s.", checkpoint)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if main_process:
        adapters.save(prepared.model, folder.adapter)

    result: dict[str, Any] = {
        "experiment_name": run.experiment_name,
        "task": prepared.spec.name,
        "model": run.model_name_or_path,
        "adapter": [config.to_dict() for config in prepared.experiment.adapters],
        "metrics": {},
        "parameters": counts.to_dict(),
        "adapter_bytes": (folder.adapter / adapters.WEIGHTS_NAME).stat().st_size if main_process else None,
        "merge_difference": merge_difference(prepared, trainer),
        "costs": trainer.measurement.to_dict() if training["do_train"] else None,
        "baselines": {},
    }
    for split, asked in (("validation", training["do_eval"]), ("test", training["do_predict"])):
        if asked and split in prepared.encoded:
            metrics, predictions = predict(prepared, trainer, split)
            result["metrics"][split] = metrics
            tracker.log({f"{split}/{name}": value for name, value in metrics.items()})
            if main_process:
                write_predictions(folder, prepared.splits[split], predictions)
    result["baselines"] = measure_baselines(prepared, folder)
    if main_process:
        write_report(folder, result, trainer.state.log_history)
        write_json(folder.metrics, result)
    return result


def make_trainer(prepared: Prepared, model: Any, arguments: Seq2SeqTrainingArguments) -> Seq2SeqTrainer:
    """The trainer of a run; it chooses the best model by the metrics of generated validation texts."""

    def compute_metrics(prediction: Any) -> dict[str, float]:
        texts = decode(prepared.tokenizer, prediction.predictions)
        return split_metrics(prepared.spec, texts, prepared.splits["validation"])

    return Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared.encoded.get("train"),
        eval_dataset=prepared.encoded.get("validation"),
        data_collator=DataCollatorForSeq2Seq(prepared.tokenizer, model=model),
        processing_class=prepared.tokenizer,
        compute_metrics=compute_metrics,
    )


def decode(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> list[str]:
    """Texts of generated ids (rows, length), in which -100 is padding."""
    return tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)


def predict(prepared: Prepared, trainer: Seq2SeqTrainer, split: str) -> tuple[dict[str, float], list[str]]:
    """Metrics of the generated texts of a split, and the texts."""
    trainer.compute_metrics = None
    output = trainer.predict(prepared.encoded[split])
    texts = decode(prepared.tokenizer, output.predictions)
    return split_metrics(prepared.spec, texts, prepared.splits[split]), texts


def merge_difference(prepared: Prepared, trainer: Seq2SeqTrainer) -> float | None:
    """Largest difference of merged and unmerged logits on one batch over the largest logit; None if not linear."""
    model = prepared.model
    if adapters.unmergeable(model) is not None:
        return None
    split = next(name for name in ("validation", "test", "train") if name in prepared.encoded)
    rows = prepared.encoded[split].select(range(min(8, len(prepared.encoded[split]))))
    batch = trainer.data_collator(list(rows)).to(model.device)
    model.eval()
    with torch.no_grad():
        unmerged = model(**batch).logits.float()
        with adapters.merged(model):
            merged = model(**batch).logits.float()
    return float((merged - unmerged).abs().max() / unmerged.abs().max())


def measure_baselines(prepared: Prepared, folder: RunFolder) -> dict[str, dict[str, float]]:
    """The metrics of each baseline asked for, on the test split (else validation); those measured before are kept."""
    found = read_json(folder.baselines) if folder.baselines.is_file() else {}
    split = "test" if "test" in prepared.splits else "validation"
    for name in prepared.experiment.run.baselines:
        if name in found:
            continue
        logger.info("Measuring the baseline %s.", name)
        if name in ("majority", "bag_of_words"):
            found[name] = getattr(baselines, name)(prepared.splits["train"], prepared.splits[split], prepared.spec)
        else:
            found[name] = model_baseline(prepared, split, random=name == "random_backbone")
        if prepared.arguments.process_index == 0:
            write_json(folder.baselines, found)
    return {name: found[name] for name in prepared.experiment.run.baselines}


def model_baseline(prepared: Prepared, split: str, random: bool) -> dict[str, float]:
    """The frozen backbone without adapter, or the same adapter trained the same way on a random backbone."""
    set_seed(prepared.arguments.seed)
    model = load_backbone(prepared.experiment, random=random)
    arguments = copy.copy(prepared.arguments)  # a second object of its own would set up the processes anew
    arguments.save_strategy, arguments.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
    arguments.load_best_model_at_end, arguments.report_to = False, []
    if random:
        adapters.attach(model, list(prepared.experiment.adapters))
    with tempfile.TemporaryDirectory() as arguments.output_dir:
        trainer = make_trainer(prepared, model, arguments)
        if random:
            trainer.train()
        return predict(prepared, trainer, split)[0]


def freezing_rows(model: Any) -> list[dict[str, Any]]:
    """What trains and why, as JSON."""
    return [vars(row) for row in adapters.freeze(model).rows]


def write_predictions(folder: RunFolder, split: Any, predictions: list[str]) -> None:
    """source, target and prediction, a line each."""
    rows = zip(split["source"], split["target"], predictions, strict=True)
    lines = [json.dumps({"source": source, "target": target, "prediction": text}) for source, target, text in rows]
    write_text(folder.predictions, "\n".join(lines) + "\n")
