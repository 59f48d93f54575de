"""Everything a run needs, loaded and checked before anything is written: data, tokenizer, model, adapters."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import DatasetDict
from transformers import PreTrainedTokenizerBase, Seq2SeqTrainingArguments, set_seed

import adapters
from adapters import ConfigurationError
from adapters.validation import nearest_name
from seq2seq.arguments import Experiment
from seq2seq.backbone import load_backbone, load_tokenizer, refusing
from seq2seq.data import load_files, load_splits, tokenize
from seq2seq.splits import limit_rows
from seq2seq.tasks import OWN_FILES, TaskSpec, get_task
from seq2seq.tracking import check_tracking
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.trainers import Seq2SeqTrainer

logger = logging.getLogger(__name__)

MOST_UNKNOWN = 0.3
"""The share of unknown tokens from which on a tokenizer does not belong to the texts."""


@dataclass(frozen=True)
class Prepared:
    """What a run needs: texts (``splits``), token ids (``encoded``), and the model with its adapters."""

    experiment: Experiment
    arguments: Seq2SeqTrainingArguments
    spec: TaskSpec
    splits: DatasetDict
    encoded: DatasetDict
    tokenizer: PreTrainedTokenizerBase
    model: T5ForConditionalGeneration


def prepare(experiment: Experiment, trained: Path) -> Prepared:
    """Load and check everything; writes nothing.

    Args:
        experiment: the checked configuration.
        trained: where an adapter lies if this run's folder has one; a run that does not train starts from it.

    Raises:
        ConfigurationError: one sentence about what does not fit.
    """
    run = experiment.run
    check_tracking(experiment)
    arguments = experiment.training_arguments()
    if arguments.n_gpu > 1:
        raise ConfigurationError(
            f"One process drives one GPU; this one sees {arguments.n_gpu}: start the run with torchrun "
            f"--nproc_per_node {arguments.n_gpu}, or choose one GPU by CUDA_VISIBLE_DEVICES."
        )
    spec = OWN_FILES if run.task_name is None else get_task(run.task_name)
    check_task_settings(experiment, spec)
    splits = load_rows(experiment, spec)
    tokenizer = load_tokenizer(experiment)
    encoded = encode(experiment, splits, tokenizer)
    set_seed(arguments.seed)
    model = load_backbone(experiment)
    with refusing("adapter", ", ".join(config.kind for config in experiment.adapters)):
        adapters.attach(model, list(experiment.adapters))
    with refusing("optim", str(experiment.training.get("optim"))):
        Seq2SeqTrainer.get_optimizer_cls_and_kwargs(arguments, model)
    start_from = run.adapter_path
    if start_from is None and not experiment.training["do_train"]:
        start_from = str(trained) if trained.is_dir() else None
        if start_from is None:
            logger.warning("Nothing is trained and no adapter_path is given: the adapter is evaluated as it starts.")
    if start_from is not None:
        with refusing("adapter_path", start_from):
            adapters.load(model, start_from)
    return Prepared(experiment, arguments, spec, splits, encoded, tokenizer, model)


def check_task_settings(experiment: Experiment, spec: TaskSpec) -> None:
    """Refuse what the task does not have: a metric to choose by, labels for a bag of words."""
    chosen_by = experiment.training.get("metric_for_best_model", "average_metrics").removeprefix("eval_")
    known = {*spec.metrics, "average_metrics", "loss"}
    if chosen_by not in known:
        raise ConfigurationError(
            f"Key 'metric_for_best_model' names a metric of task {spec.name!r}; given was {chosen_by!r}: "
            f"{nearest_name(chosen_by, known)}"
        )
    if "bag_of_words" in experiment.run.baselines and spec.labels is None:
        raise ConfigurationError(
            "Key 'baselines' has a bag of words for tasks with labels only; the targets here are free text: drop it."
        )


def load_rows(experiment: Experiment, spec: TaskSpec) -> DatasetDict:
    """The splits as texts, cut to as many rows as the run takes."""
    run = experiment.run
    key = "train_file, validation_file or test_file" if run.files else "task_name"
    with refusing(key, ", ".join(run.files.values()) or spec.name):
        if run.files:
            splits = load_files(run.files)
        else:
            splits = load_splits(spec, data_dir=run.data_dir, data_seed=run.data_seed)
    limits = {"train": run.max_train_samples, "validation": run.max_validation_samples, "test": run.max_test_samples}
    for split, limit in limits.items():
        if split in splits:
            with refusing(f"max_{split}_samples", str(limit)):
                splits = limit_rows(splits, {split: limit}, run.data_seed)
    return splits


def encode(experiment: Experiment, splits: DatasetDict, tokenizer: PreTrainedTokenizerBase) -> DatasetDict:
    """The splits as token ids; refuses a tokenizer that does not know the words."""
    run = experiment.run
    encoded = DatasetDict()
    for split, rows in splits.items():
        ids, _ = tokenize(rows, tokenizer, run.max_source_length, run.max_target_length)
        encoded[split] = ids.select_columns(["input_ids", "labels"])
        sample = torch.tensor([token for row in encoded[split][:100]["input_ids"] for token in row])
        unknown = (sample == tokenizer.unk_token_id).float().mean().item()
        if unknown > MOST_UNKNOWN:
            raise ConfigurationError(
                f"Key 'model_name_or_path' names a model whose tokenizer knows the words of the task; that of "
                f"{run.model_name_or_path!r} has no token for {unknown:.0%} of the {split} split: "
                "check that its vocabulary file (spiece.model or tokenizer.json) is there."
            )
    return encoded
