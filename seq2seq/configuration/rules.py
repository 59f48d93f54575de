"""Rules of a configuration beyond the types of its keys; each violation is one sentence.

The rules of a workload's own keys are in its folder, those of an extra in its module.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from adapters import ConfigurationError
from adapters.saved.folder import CONFIG_NAME
from adapters.validation import nearest_name, refuse
from seq2seq.configuration.sharding import check_sharding
from seq2seq.experiment import Experiment, RunArguments
from seq2seq.workload import Workload

_RESERVED = {
    "the folder is output_root/experiment_name": ("output_dir",),
    "experiment_name names the run": ("run_name",),
    "an unfinished run resumes by itself": ("resume_from_checkpoint",),
    "a run stays in its folder": ("push_to_hub", "hub_token"),
    "several processes train a run with DDP, or with fsdp, started with torchrun": (
        "deepspeed",
        "accelerator_config",
        "parallelism_config",
    ),
    "torchrun sets it": ("local_rank",),
    "metrics are computed over a whole split": (
        "prediction_loss_only",
        "batch_eval_metrics",
        "include_for_metrics",
        "eval_do_concat_batches",
    ),
    "the workload decides which columns a batch has": ("label_names", "remove_unused_columns"),
    "it replaces the layers that adapters are attached to": ("use_liger_kernel", "liger_kernel_config"),
    "wandb_project names wandb's project": ("project",),
    "memory is pinned if there is a GPU": ("dataloader_pin_memory",),
    "a run can always be resumed": ("save_only_model",),
    "its hooks fail on the masks of a transformer": ("debug",),
}
RESERVED_ARGUMENTS = {key: reason for reason, keys in _RESERVED.items() for key in keys}
"""Training arguments that every run sets itself, each with the reason; ``Workload.reserved_arguments`` are others."""

LONGEST_NAME = 200
"""Characters of an experiment's name."""

RESERVED_PREFIXES = {"hub_": "a run stays in its folder", "trackio_": "a run stays in its folder"}

RANGES: dict[str, tuple[float, float]] = {
    "num_train_epochs": (0, 1e6),
    "learning_rate": (0, 1e3),
    "weight_decay": (0, 1e3),
    "warmup_steps": (0, 1e9),
    "max_grad_norm": (0, 1e9),
    "adam_beta1": (0, 0.999999),
    "adam_beta2": (0, 0.999999),
    "adam_epsilon": (0, 1),
    "label_smoothing_factor": (0, 1),
    "logging_steps": (0, 1e9),
    "eval_steps": (0, 1e9),
    "save_steps": (0, 1e9),
    "per_device_train_batch_size": (1, 1e6),
    "per_device_eval_batch_size": (1, 1e6),
    "gradient_accumulation_steps": (1, 1e6),
    "eval_accumulation_steps": (1, 1e9),
    "eval_delay": (0, 1e9),
    "torch_empty_cache_steps": (1, 1e9),
    "neftune_noise_alpha": (0, 1e3),
    "ddp_timeout": (1, 1e9),
    "ddp_bucket_cap_mb": (1, 1e6),
    "dataloader_num_workers": (0, 1e3),
    "dataloader_prefetch_factor": (1, 1e6),
    "save_total_limit": (1, 1e6),
    "seed": (0, 2**32 - 1),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "log_level": ("passive", "debug", "info", "warning", "error", "critical", "detail"),
    "log_level_replica": ("passive", "debug", "info", "warning", "error", "critical", "detail"),
}


def check_reserved_arguments(values: Mapping[str, Any], workload: type[Workload]) -> None:
    """Refuse training arguments that the run itself sets."""
    reserved = RESERVED_ARGUMENTS | workload.reserved_arguments
    for key in values:
        by_prefix = (reason for prefix, reason in RESERVED_PREFIXES.items() if key.startswith(prefix))
        reason = reserved.get(key) or next(by_prefix, None)
        if reason is not None:
            refuse(key, "is set by the run itself", repr(values[key]), f"leave it out, {reason}", "the configuration")


def check_experiment(experiment: Experiment) -> None:
    """Refuse keys that do not fit each other.

    Raises:
        ConfigurationError: the first of them that does not.
    """
    check_run(experiment.run)
    check_ranges(experiment)
    check_training(experiment)
    check_sharding(experiment)
    check_metric(experiment)
    experiment.workload.check(experiment.adapters, experiment.training)
    check_adapters(experiment)
    for extra in experiment.extras:
        extra.check(experiment)


def check_experiment_name(name: str) -> None:
    """Refuse a value that cannot be the name of a run folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigurationError(
            "Key 'experiment_name' is the name of a folder, of letters, digits, '.', '_' and '-'; "
            f"got {name!r}: choose such a name (output_root sets its parent folder)."
        )
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"Key 'experiment_name' must have at most {LONGEST_NAME} characters, as file systems allow 255 with what "
            f"a run adds; got {len(name)}: shorten it."
        )


def check_run(run: RunArguments) -> None:
    """Refuse invalid names and paths."""
    check_experiment_name(run.experiment_name)
    if run.adapter_path is not None and not os.path.isdir(run.adapter_path):
        refuse("adapter_path", "must name a directory", repr(run.adapter_path), "check the path", "the run")
    if run.adapter_path is not None:
        inside = os.path.join(run.adapter_path, "adapter")
        if os.path.isfile(os.path.join(inside, CONFIG_NAME)):
            given = f"{run.adapter_path!r}, a run folder"
            refuse("adapter_path", "names the folder of an adapter", given, f"write {inside}", "the run")
    if os.path.isfile(run.output_root):
        refuse("output_root", "must name a directory", f"{run.output_root!r}, a file", "choose another", "the run")


def check_ranges(experiment: Experiment) -> None:
    """Refuse numeric keys that are out of range, and unknown names."""
    values = {**experiment.training, **vars(experiment.workload)}
    for key, (low, high) in {**RANGES, **experiment.workload.ranges}.items():
        value = values.get(key)
        if value is not None and not low <= value <= high:
            raise ConfigurationError(
                f"Key {key!r} must be at least {low:g} and at most {high:g}; got {value}: choose a number in between."
            )
    for key, known in CHOICES.items():
        value = values.get(key)
        if value is not None and value not in known:
            raise ConfigurationError(f"Key {key!r} must be a known name; got {value!r}: {nearest_name(value, known)}")
    steps = values.get("max_steps")
    if steps is not None and steps < 1 and steps != -1:
        raise ConfigurationError(
            f"Key 'max_steps' counts steps from 1, or is -1 for no limit; got {steps}: write a positive number."
        )


def check_training(experiment: Experiment) -> None:
    """Refuse training arguments that exclude each other, or that the run does not support."""
    training = experiment.training
    acting = any(training[key] for key in ("do_train", "do_eval", "do_predict"))
    if not acting and not any(extra.acts_alone for extra in experiment.extras):
        raise ConfigurationError(
            "At least one of do_train, do_eval and do_predict must be true; got none: set one to true."
        )
    reported = training["report_to"]
    for name in [reported] if isinstance(reported, str) else reported or []:
        if name not in ("none", "tensorboard"):
            raise ConfigurationError(
                f"Key 'report_to' must be 'none' or 'tensorboard'; got {name!r}: for wandb set log_to_wandb to true."
            )
    loads_best = training["do_train"] and training["load_best_model_at_end"]
    for key, split, needed in (
        ("do_train", "train", training["do_train"]),
        ("load_best_model_at_end", "validation", loads_best),
        ("eval_on_start", "validation", training["do_train"] and training.get("eval_on_start")),
        ("do_eval", "validation", training["do_eval"]),
        ("do_predict", "test", training["do_predict"]),
    ):
        if needed:
            check_has_split(experiment, key, split)
    if loads_best and training["save_strategy"] not in (training["eval_strategy"], "best"):
        raise ConfigurationError(
            "Key 'save_strategy' must equal eval_strategy if load_best_model_at_end is true; got "
            f"{training['save_strategy']!r} with an eval_strategy of {training['eval_strategy']!r}: "
            "set both to 'steps' or both to 'epoch'."
        )
    if loads_best and training["eval_strategy"] == "no":
        raise ConfigurationError(
            "Key 'load_best_model_at_end' needs evaluation; got eval_strategy 'no': set it to 'steps' or 'epoch', "
            "or load_best_model_at_end to false."
        )


def check_has_split(experiment: Experiment, key: str, split: str) -> None:
    """Refuse a key that needs rows of a split which the run does not have."""
    workload = experiment.workload
    if split not in workload.splits:
        give = f"give {workload.split_keys[split]} or " if split in workload.split_keys else ""
        raise ConfigurationError(
            f"Key {key!r} needs rows of the {split} split; got rows of {sorted(workload.splits)}: "
            f"{give}leave {key} out."
        )


def check_metric(experiment: Experiment) -> None:
    """Refuse to choose checkpoints by a metric that the workload does not have."""
    chosen_by = (experiment.training.get("metric_for_best_model") or "loss").removeprefix("eval_")
    known = {*experiment.workload.metric_names, "loss"}
    if chosen_by not in known:
        raise ConfigurationError(
            f"Key 'metric_for_best_model' must name a metric of {experiment.workload.task_label!r}; got {chosen_by!r}: "
            f"{nearest_name(chosen_by, known)}"
        )


def check_adapters(experiment: Experiment) -> None:
    """Refuse adapters that leave nothing to train."""
    configs = experiment.adapters
    only_frozen = all(config.kind == "layer_norm" and not config.trainable for config in configs)
    if experiment.training["do_train"] and only_frozen:
        raise ConfigurationError(
            f"Key 'adapter' must leave something to train; got {[config.kind for config in configs]}: add a kind, or "
            "set do_train to false."
        )
