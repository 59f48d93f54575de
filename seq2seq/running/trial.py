"""Build once what training will build - trainer, loaders, optimizer, schedule, compiled model - and throw it away.

Libraries check many training arguments when they use them, which is after files have been written; a trial is before.
Nothing is trained: weights stay as they are, and the run's own trainer sets the random state again.
"""

import contextlib
import copy
import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Trainer

from adapters import ConfigurationError
from seq2seq.errors import as_sentence
from seq2seq.experiment import Experiment
from seq2seq.workload import Prepared

TRAINER = (
    "fsdp",
    "fsdp_config",
    "torch_compile_backend",
    "torch_compile_mode",
    "neftune_noise_alpha",
    "skip_memory_metrics",
)
LOADER = (
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "dataloader_persistent_workers",
    "dataloader_multiprocessing_context",
    "train_sampling_strategy",
    "length_column_name",
)
OPTIMIZER = ("optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay")
SCHEDULE = ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps")
CHECKPOINTING = ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")
"""Training arguments by what is built of them."""


def check_by_trial(experiment: Experiment, prepared: Prepared) -> None:
    """Refuse training arguments that a library cannot use; writes nothing into the run folder.

    Raises:
        ConfigurationError: it names the keys of what could not be built.
    """
    arguments = copy.copy(prepared.arguments)  # not dataclasses.replace, which would initialise devices again
    with tempfile.TemporaryDirectory() as scratch:
        arguments.output_dir = scratch
        with unusable(experiment, TRAINER):
            trainer = experiment.make_trainer(replace(prepared, arguments=arguments))
            if arguments.torch_compile:
                torch.compile(nn.Identity(), **trainer.accelerator.state.dynamo_plugin.to_kwargs())
        with unusable(experiment, LOADER):
            for rows in experiment.workload.samples(prepared).values():
                trainer.get_test_dataloader(rows)
    if arguments.do_train:
        try_training(experiment, trainer)


def try_training(experiment: Experiment, trainer: Trainer) -> None:
    """Refuse what the training loop alone needs."""
    arguments = trainer.args
    with unusable(experiment, LOADER):
        loader = trainer.get_train_dataloader()
    if len(loader) == 0:
        raise ConfigurationError(
            "Key 'dataloader_drop_last' must leave a full batch to train on; got true for "
            f"{len(trainer.train_dataset)} rows in batches of {arguments.train_batch_size}: set it to false, or "
            "per_device_train_batch_size to less."
        )
    with unusable(experiment, OPTIMIZER):
        trainer.create_optimizer()
    steps = math.ceil(arguments.num_train_epochs * len(loader) / arguments.gradient_accumulation_steps)
    with unusable(experiment, SCHEDULE):
        trainer.create_scheduler(arguments.max_steps if arguments.max_steps > 0 else max(steps, 1))
    with unusable(experiment, CHECKPOINTING):
        for key in CHECKPOINTING:
            keywords = {"use_reentrant": False, **(getattr(arguments, key, None) or {})}
            if not int(keywords.pop("every_n_layers", 1)) > 0:
                raise ValueError("every_n_layers must be at least 1")
            keywords.pop("offload", None)  # with the former, an argument of transformers, not of torch
            checkpoint(nn.Identity(), torch.zeros(1, requires_grad=True), **keywords)


@contextlib.contextmanager
def unusable(experiment: Experiment, keys: tuple[str, ...]) -> Iterator[None]:
    """Turn whatever a library raises in the body into a ConfigurationError about those of ``keys`` that are given."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:  # libraries raise what they like: AssertionError, KeyError, InvalidBackend
        given = {key: experiment.training[key] for key in keys if experiment.training.get(key) is not None}
        named = ", ".join(f"{key}={value!r}" for key, value in given.items()) or "the defaults"
        raise ConfigurationError(
            f"Key {next(iter(given), keys[0])!r} must have a value that can be used; got {named}: {as_sentence(error)}"
        ) from error
