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
from seq2seq.configuration.keys import Experiment
from seq2seq.running.tracking import check_tracking
from seq2seq.tasks.metrics import average_over_tasks
from seq2seq.tasks.mixing import MixtureSampler
from seq2seq.tasks.registry import CUSTOM_FILES, get_task
from seq2seq.tasks.sources import is_task_folder, load_files, load_splits
from seq2seq.tasks.splits import limit_rows
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.text.backbone import load_backbone, load_tokenizer, refusing
from seq2seq.text.encoding import tokenize
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.trainers import Seq2SeqTrainer
from third_party.trainers.seq2seq_trainer import TASK_COLUMN

logger = logging.getLogger(__name__)

MOST_UNKNOWN = 0.3
"""The share of unknown tokens from which on a tokenizer does not belong to the texts."""


@dataclass(frozen=True)
class TaskData:
    """A task with its splits, as texts and as token ids."""

    spec: TaskSpec
    splits: DatasetDict
    encoded: DatasetDict


@dataclass(frozen=True)
class Prepared:
    """What a run needs: its tasks by name, the model with its adapters, and who orders the rows of a mixture."""

    experiment: Experiment
    arguments: Seq2SeqTrainingArguments
    tasks: dict[str, TaskData]
    train_sampler: MixtureSampler | None
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
    specs = [get_task(name) for name in run.task_names] or [CUSTOM_FILES]
    check_task_settings(experiment, specs)
    splits = {spec.name: load_rows(experiment, spec) for spec in specs}
    train_sampler = order_rows(experiment, arguments, splits)
    tokenizer = load_tokenizer(experiment)
    tasks = {
        spec.name: TaskData(spec, splits[spec.name], encode(experiment, number, splits[spec.name], tokenizer))
        for number, spec in enumerate(specs)
    }
    set_seed(arguments.seed)
    model = attach_adapters(experiment, load_backbone(experiment))
    with refusing("optim", str(experiment.training.get("optim"))):
        Seq2SeqTrainer.get_optimizer_cls_and_kwargs(arguments, model)
    start_from = run.adapter_path
    if start_from is None and not experiment.training["do_train"]:
        start_from = str(trained) if trained.is_dir() else None
        if start_from is None:
            logger.warning("Nothing is trained and no adapter_path is given: the adapter is evaluated as it starts.")
    if start_from is not None:
        with refusing("adapter_path", start_from):
            adapters.fit_ranks(model, start_from)
            adapters.load(model, start_from)
    return Prepared(experiment, arguments, tasks, train_sampler, tokenizer, model)


def check_task_settings(experiment: Experiment, specs: list[TaskSpec]) -> None:
    """Refuse what the tasks do not have: a metric to choose by, labels for a bag of words."""
    chosen_by = experiment.training.get("metric_for_best_model", "average_metrics").removeprefix("eval_")
    names = {spec.name: [*spec.metrics, "average_metrics", "loss"] for spec in specs}
    known = set(average_over_tasks({name: dict.fromkeys(metrics, 0.0) for name, metrics in names.items()}))
    if chosen_by not in known:
        raise ConfigurationError(
            f"Key 'metric_for_best_model' names a metric of task {experiment.run.task_label!r}; got "
            f"{chosen_by!r}: {nearest_name(chosen_by, known)}"
        )
    for spec in specs:
        if "bag_of_words" in experiment.run.baselines and spec.labels is None:
            raise ConfigurationError(
                "Key 'baselines' has a bag of words for tasks with labels only; the targets of "
                f"{spec.name!r} are free text: drop it."
            )


def attach_adapters(experiment: Experiment, model: T5ForConditionalGeneration) -> T5ForConditionalGeneration:
    """The model with the run's adapters: for all tasks, or once more for each task."""
    with refusing("adapter", ", ".join(config.kind for config in experiment.adapters)):
        for task in experiment.run.task_names if experiment.run.adapters_per_task else (None,):
            adapters.attach(model, list(experiment.adapters), task)
    return model


def order_rows(
    experiment: Experiment, arguments: Seq2SeqTrainingArguments, splits: dict[str, DatasetDict]
) -> MixtureSampler | None:
    """Who orders the training rows: the mixture's sampler, or None for transformers' own."""
    if experiment.run.mixture is None:
        return None
    sizes = {name: len(parts["train"]) for name, parts in splits.items()}
    step_rows = arguments.per_device_train_batch_size * arguments.world_size
    return experiment.run.mixture.sampler(sizes, step_rows, experiment.training["seed"])


def load_rows(experiment: Experiment, spec: TaskSpec) -> DatasetDict:
    """The splits as texts, cut to as many rows as the run takes."""
    run = experiment.run
    if run.mixture is not None and run.data_dir is not None and is_task_folder(run.data_dir):
        raise ConfigurationError(
            "Key 'data_dir' of a mixture names a directory that holds a folder for each task; got "
            f"{run.data_dir!r}, which holds rows itself: give the directory above it."
        )
    key = "train_file, validation_file or test_file" if run.files else "task_name"
    with refusing(key, ", ".join(run.files.values()) or spec.name):
        if run.files:
            splits = load_files(run.files)
        else:
            splits = load_splits(spec, data_dir=run.data_dir, data_seed=run.data_seed)
    limits = {"train": run.max_train_samples, "validation": run.max_validation_samples, "test": run.max_test_samples}
    for split, limit in limits.items():
        if split in splits:
            with refusing(f"max_{split}_samples", f"{limit} of task {spec.name}"):
                splits = limit_rows(splits, {split: limit}, run.data_seed)
    return splits


def encode(experiment: Experiment, number: int, splits: DatasetDict, tokenizer: PreTrainedTokenizerBase) -> DatasetDict:
    """The splits of the task of that number as token ids; refuses a tokenizer that does not know the words.

    Where each task has its own adapters, a column ``task`` has the number.
    """
    run = experiment.run
    encoded = DatasetDict()
    for split, rows in splits.items():
        ids, _ = tokenize(rows, tokenizer, run.max_source_length, run.max_target_length)
        encoded[split] = ids.select_columns(["input_ids", "labels"])
        if run.adapters_per_task:
            encoded[split] = encoded[split].add_column(TASK_COLUMN, [number] * len(ids))
        sample = torch.tensor([token for row in encoded[split][:100]["input_ids"] for token in row])
        unknown = (sample == tokenizer.unk_token_id).float().mean().item()
        if unknown > MOST_UNKNOWN:
            raise ConfigurationError(
                f"Key 'model_name_or_path' names a model whose tokenizer knows the words of the task; that of "
                f"{run.model_name_or_path!r} has no token for {unknown:.0%} of the {split} split: "
                "check that its vocabulary file (spiece.model or tokenizer.json) is there."
            )
    return encoded
