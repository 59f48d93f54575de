"""What the keys of a configuration may be, beyond their types: one sentence for each thing that cannot be."""

import os
import re
from typing import Any

from adapters import AdapterConfig, ConfigurationError
from adapters.adaptive_ranks.trains import fixed_ranks_reason
from adapters.tensor_train.fields import TensorTrainFields
from adapters.validation import nearest_name
from seq2seq.configuration.keys import RunArguments
from seq2seq.tasks.registry import get_task

RESERVED_ARGUMENTS = {
    "output_dir": "the folder is output_root/experiment_name",
    "run_name": "the run is called by experiment_name",
    "resume_from_checkpoint": "an unfinished run resumes by itself",
    "push_to_hub": "a run stays in its folder",
    "hub_token": "a run stays in its folder",
    "fp16": "T5 overflows in float16: use bf16",
    "fp16_full_eval": "T5 overflows in float16: use bf16_full_eval",
    "deepspeed": "several processes share a run by DDP, started with torchrun",
    "fsdp": "several processes share a run by DDP, started with torchrun",
    "fsdp_config": "several processes share a run by DDP, started with torchrun",
    "local_rank": "torchrun sets it",
    "accelerator_config": "several processes share a run by DDP, started with torchrun",
    "parallelism_config": "several processes share a run by DDP, started with torchrun",
    "generation_config": "answers are greedy, or of generation_num_beams beams",
    "prediction_loss_only": "metrics are always those of generated texts",
    "batch_eval_metrics": "metrics are those of a whole split",
    "include_for_metrics": "metrics are those of generated texts",
    "eval_do_concat_batches": "metrics are those of a whole split",
    "label_names": "a batch has the targets as labels",
    "use_liger_kernel": "it replaces the layers that adapters are attached to",
    "liger_kernel_config": "it replaces the layers that adapters are attached to",
    "project": "wandb's project is wandb_project",
    "predict_with_generate": "metrics are always those of generated texts",
    "generation_max_length": "answers have at most max_target_length tokens",
    "remove_unused_columns": "the columns are what the model takes",
    "dataloader_pin_memory": "memory is pinned where there is a GPU",
    "save_only_model": "a run can always be resumed",
}

RANGES: dict[str, tuple[float, float]] = {
    "num_train_epochs": (0, 1e6),
    "learning_rate": (0, 1e3),
    "weight_decay": (0, 1e3),
    "warmup_steps": (0, 1e9),
    "max_grad_norm": (0, 1e9),
    "adam_beta1": (0, 0.999999),
    "adam_beta2": (0, 0.999999),
    "label_smoothing_factor": (0, 1),
    "logging_steps": (0, 1e9),
    "eval_steps": (0, 1e9),
    "save_steps": (0, 1e9),
    "per_device_train_batch_size": (1, 1e6),
    "per_device_eval_batch_size": (1, 1e6),
    "gradient_accumulation_steps": (1, 1e6),
    "dataloader_num_workers": (0, 1e3),
    "save_total_limit": (1, 1e6),
    "generation_num_beams": (1, 1e3),
    "seed": (0, 2**32 - 1),
    "data_seed": (0, 2**32 - 1),
    "max_source_length": (2, 1e6),
    "max_target_length": (2, 1e6),
    "max_train_samples": (1, 1e12),
    "max_validation_samples": (1, 1e12),
    "max_test_samples": (1, 1e12),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "log_level": ("passive", "debug", "info", "warning", "error", "critical", "detail"),
    "log_level_replica": ("passive", "debug", "info", "warning", "error", "critical", "detail"),
}


def check_reserved_arguments(values: dict[str, Any]) -> None:
    """Refuse training arguments that the run itself sets."""
    for key in values:
        reason = RESERVED_ARGUMENTS.get(key)
        if key.startswith(("hub_", "trackio_")):
            reason = "a run stays in its folder"
        if reason is not None:
            raise ConfigurationError(
                f"Key {key!r} of the configuration is not set by hand; {values[key]!r} was given: {reason}."
            )


def check_experiment_name(name: str) -> None:
    """Refuse what cannot be the name of a run's folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigurationError(
            "Key 'experiment_name' is the name of a folder, of letters, digits, '.', '_' and '-'; "
            f"got {name!r}: choose such a name (the folder's place is output_root)."
        )


def check_run(run: RunArguments) -> None:
    """Refuse names, tasks and paths of a run that cannot be."""
    check_experiment_name(run.experiment_name)
    if run.task_name is not None:
        get_task(run.task_name)
    if sum((run.task_name is not None, run.mixture is not None, bool(run.files))) != 1:
        tasks = None if run.mixture is None else list(run.mixture.tasks)
        raise ConfigurationError(
            "A run has one of a task_name, a mixture or files of its own (train_file, validation_file, test_file); "
            f"got task_name={run.task_name!r}, a mixture of {tasks} and files {sorted(run.files)}: give one."
        )
    if run.files and run.data_dir is not None:
        raise ConfigurationError(
            f"Key 'data_dir' belongs to a task_name or a mixture; got {run.data_dir!r} beside files: drop one."
        )
    for key in ("train_file", "validation_file", "test_file"):
        path = getattr(run, key)
        if path is not None and not os.path.isfile(path):
            raise ConfigurationError(f"Key {key!r} names a file; {path!r} is none: check the path.")
    for key in ("data_dir", "adapter_path"):
        path = getattr(run, key)
        if path is not None and not os.path.isdir(path):
            raise ConfigurationError(f"Key {key!r} names a directory; {path!r} is none: check the path.")
    if not os.path.isdir(run.model_location) and run.model_location.startswith(("/", ".")):
        raise ConfigurationError(
            "Key 'model_name_or_path' names a directory, or a model in the cache or on the hub; "
            f"{run.model_name_or_path!r} is no directory: check the path."
        )
    if os.path.isfile(run.output_root):
        raise ConfigurationError(f"Key 'output_root' names a directory; {run.output_root!r} is a file: choose another.")
    if len(set(run.baselines)) < len(run.baselines):
        raise ConfigurationError(
            f"Key 'baselines' names each baseline once; got {list(run.baselines)}: drop the second."
        )


def check_ranges(values: dict[str, Any]) -> None:
    """Refuse numbers out of their range and names that are none of the known ones."""
    for key, (low, high) in RANGES.items():
        value = values.get(key)
        if value is not None and not low <= value <= high:
            raise ConfigurationError(
                f"Key {key!r} is at least {low:g} and at most {high:g}; got {value}: choose a number in between."
            )
    for key, known in CHOICES.items():
        value = values.get(key)
        if value is not None and value not in known:
            raise ConfigurationError(f"Key {key!r} is a name; got {value!r}: {nearest_name(value, known)}")
    steps = values.get("max_steps")
    if steps is not None and steps < 1 and steps != -1:
        raise ConfigurationError(f"Key 'max_steps' counts steps from 1, or is -1 for none; got {steps}: mend it.")


def check_training(run: RunArguments, training: dict[str, Any]) -> None:
    """Refuse training arguments that exclude each other, or that the run cannot serve."""
    if not any(training[key] for key in ("do_train", "do_eval", "do_predict")):
        raise ConfigurationError("One of do_train, do_eval and do_predict is true; all are false: set one to true.")
    reported = training["report_to"]
    for name in [reported] if isinstance(reported, str) else reported or []:
        if name not in ("none", "tensorboard"):
            raise ConfigurationError(
                f"Key 'report_to' is 'none' or 'tensorboard'; got {name!r}: for wandb set log_to_wandb to true."
            )
    for key, split, needed in (
        ("do_train", "train", training["do_train"]),
        ("do_train", "validation", training["do_train"] and training["eval_strategy"] != "no"),
        ("do_eval", "validation", training["do_eval"]),
        ("do_predict", "test", training["do_predict"]),
        ("baselines", "train", bool(run.baselines)),
    ):
        if run.files and needed and split not in run.files:
            raise ConfigurationError(
                f"Key {key!r} needs the {split} rows; got the files of {sorted(run.files)}: "
                f"give {split}_file or leave {key} out."
            )
    if run.baselines and run.files and not {"validation", "test"} & run.files.keys():
        raise ConfigurationError(
            f"Key 'baselines' needs rows to measure on; got the files of {sorted(run.files)}: give test_file."
        )
    if training["load_best_model_at_end"] and training["save_strategy"] not in (training["eval_strategy"], "best"):
        given = f"{training['save_strategy']!r} beside an eval_strategy of {training['eval_strategy']!r}"
        raise ConfigurationError(
            f"Key 'save_strategy' is that of evaluation where load_best_model_at_end is true; got {given}: "
            "set both to 'steps' or both to 'epoch'."
        )
    if training["load_best_model_at_end"] and training["eval_strategy"] == "no" and training["do_train"]:
        raise ConfigurationError(
            "Key 'load_best_model_at_end' chooses by evaluation; eval_strategy is 'no': set it to 'steps' or 'epoch', "
            "or load_best_model_at_end to false."
        )


def check_mixture(run: RunArguments, training: dict[str, Any]) -> None:
    """Refuse training arguments that a mixture decides."""
    if run.mixture is None:
        return
    strategy = training.get("train_sampling_strategy", "random")
    if strategy != "random":
        raise ConfigurationError(
            f"Key 'train_sampling_strategy' is 'random' in a mixture, which draws its rows itself; got "
            f"{strategy!r}: leave it out."
        )
    if run.mixture.batches == "one_task" and training.get("auto_find_batch_size"):
        raise ConfigurationError(
            "Key 'auto_find_batch_size' is false where batches are of one task, which fixes their size; got "
            "True: leave it out."
        )
    if run.adapters_per_task and training.get("ddp_find_unused_parameters") is not None:
        raise ConfigurationError(
            "Key 'ddp_find_unused_parameters' is set by the run where each task has its own adapters; got "
            f"{training['ddp_find_unused_parameters']}: leave it out."
        )


def check_rank_schedule(run: RunArguments, configs: tuple[AdapterConfig, ...], training: dict[str, Any]) -> None:
    """Refuse a schedule that no adapter can follow, that ends after the run, or that several processes would share."""
    schedule = run.rank_schedule
    if schedule is None:
        return
    reasons = [f"{c.kind}: {fixed_ranks_reason(c) or 'yes'}" for c in configs if isinstance(c, TensorTrainFields)]
    if not any(reason.endswith(": yes") for reason in reasons):
        given = "; ".join(reasons) or ", ".join(config.kind for config in configs)
        raise ConfigurationError(
            "Key 'rank_schedule' needs a tt_lora, tt_single or tt_adapter of the format tensor_train whose cores are "
            f"its own and all train; got {given}: change the adapter, or leave the schedule out."
        )
    steps = training.get("max_steps", -1)
    if steps > 0:
        schedule.check_steps(steps)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if training["do_train"] and processes > 1:
        raise ConfigurationError(
            f"Key 'rank_schedule' belongs to a run of one process, for DDP reserves buffers for cores of one shape; "
            f"got {processes} processes: start the run without torchrun."
        )


def check_adapters(run: RunArguments, configs: tuple[AdapterConfig, ...], training: dict[str, Any]) -> None:
    """Refuse adapters that leave nothing to do, or that cannot be one for each task."""
    kinds = [config.kind for config in configs]
    of_all_tasks = [config.kind for config in configs if config.position == "weights"]
    if run.adapters_per_task and of_all_tasks:
        raise ConfigurationError(
            "Key 'adapters' of the mixture is 'shared' where a kind decides about the model's own weights, which all "
            f"tasks share; got 'per_task' and the kind {of_all_tasks[0]!r}: drop the kind, or share the adapters."
        )
    only_frozen = all(config.kind == "layer_norm" and not config.trainable for config in configs)
    if training["do_train"] and only_frozen:
        raise ConfigurationError(
            f"Key 'adapter' leaves something to train; got {kinds}: add a kind, or set do_train to false."
        )
