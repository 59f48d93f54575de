"""What a configuration says, checked and typed: the run's own keys, its adapters, transformers' training arguments."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Seq2SeqTrainingArguments

from adapters import AdapterConfig, ConfigurationError, RankSchedule
from seq2seq import PROJECT
from seq2seq.tasks.mixing import Mixture
from seq2seq.tasks.registry import CUSTOM_FILES

TRAINING_DEFAULTS: dict[str, Any] = {
    "seed": 42,
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
    "learning_rate": 1e-3,  # adapters want more than the 5e-5 of full fine-tuning
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the best and the newest
    "logging_steps": 20,
    "logging_first_step": True,  # a curve begins at its beginning
    "load_best_model_at_end": True,
    "metric_for_best_model": "average_metrics",
    "report_to": "none",
}


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """The keys of a run besides ``adapter`` and the training arguments.

    Args:
        experiment_name: name of the run's folder.
        output_root: the folder that holds the runs.
        model_name_or_path: a directory, or a name that transformers finds in its cache or on the hub.
        dtype: dtype of the frozen weights; adapters are float32 in either.
        task_name: a task of ``seq2seq.tasks.registry``; None for a mixture or for files of one's own.
        mixture: several tasks at once, see ``seq2seq.tasks.mixing``.
        data_dir: directory with the task's files, or with the folders of a mixture's tasks; None for the project's own,
            the cache or the hub.
        data_seed: decides the split and the rows that a limit takes; their order is that of ``seed``.
        train_file, validation_file, test_file: files of one's own, with the columns ``source`` and ``target``.
        max_train_samples, max_validation_samples, max_test_samples: how many rows of each task are taken; None for all.
        max_source_length, max_target_length: longer texts are cut to so many tokens.
        rank_schedule: at which steps the ranks of tensor trains change, see ``adapters.RankSchedule``; None for never.
        adapter_path: a saved adapter to start from; None to start from the configuration's own start values.
        baselines: what is measured beside the result, see ``seq2seq.extras.baselines``.
        measure_expressivity: whether trajectory lengths are measured before and after training, see
            ``seq2seq.extras.expressivity``.
        log_to_wandb: whether wandb follows the run; WANDB_MODE=offline needs no account.
        wandb_project: its project there.
        overwrite: whether a finished or different run of this name is thrown away.
    """

    experiment_name: str
    output_root: str = "outputs"
    model_name_or_path: str = "assets/small_world/backbone"
    dtype: Literal["float32", "bfloat16"] = "float32"
    task_name: str | None = None
    mixture: Mixture | None = None
    data_dir: str | None = None
    data_seed: int = 42
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None
    max_source_length: int = 128
    max_target_length: int = 16
    rank_schedule: RankSchedule | None = None
    adapter_path: str | None = None
    baselines: tuple[Literal["majority", "bag_of_words", "frozen_backbone", "random_backbone"], ...] = ()
    measure_expressivity: bool = False
    log_to_wandb: bool = False
    wandb_project: str = "tensorized-adapters"
    overwrite: bool = False

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return Path(self.output_root).absolute() / self.experiment_name

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks by name; none where the files are one's own."""
        if self.mixture is not None:
            return self.mixture.tasks
        return () if self.task_name is None else (self.task_name,)

    @property
    def task_label(self) -> str:
        """What a table calls the run's task or tasks."""
        return " + ".join(self.task_names) or CUSTOM_FILES.name

    @property
    def adapters_per_task(self) -> bool:
        """Whether each task has adapters of its own."""
        return self.mixture is not None and self.mixture.adapters == "per_task"

    @property
    def files(self) -> dict[str, str]:
        """The given files of one's own by split."""
        given = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        return {split: path for split, path in given.items() if path is not None}

    @property
    def model_location(self) -> str:
        """A directory here or in the project as an absolute path, else the name as it is."""
        for path in (Path(self.model_name_or_path), PROJECT / self.model_name_or_path):
            if path.is_dir():
                return str(path.absolute())
        return self.model_name_or_path


@dataclass(frozen=True)
class Experiment:
    """A checked configuration: the run, its adapters, and transformers' training arguments as keywords."""

    run: RunArguments
    adapters: tuple[AdapterConfig, ...]
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as JSON, which ``read_experiment`` reads back; ``overwrite`` is no part of it."""
        run = {f.name: getattr(self.run, f.name) for f in fields(self.run) if f.name != "overwrite"}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in run.items()}
        for key in ("mixture", "rank_schedule"):
            plain[key] = None if getattr(self.run, key) is None else getattr(self.run, key).to_dict()
        return {**plain, "adapter": [config.to_dict() for config in self.adapters], **self.training}

    def training_arguments(self, **overrides: Any) -> Seq2SeqTrainingArguments:
        """transformers' object for this run.

        Raises:
            ConfigurationError: the arguments exclude each other.
        """
        values = {
            **self.training,
            "output_dir": str(self.run.directory / "checkpoints"),
            "data_seed": self.training["seed"],  # of the order of rows
            "predict_with_generate": True,  # the metrics are those of generated texts
            "generation_max_length": self.run.max_target_length,
            "dataloader_pin_memory": torch.cuda.is_available(),
            # where there is nothing else, several processes find each other only if told that they are on a CPU
            "use_cpu": self.training.get("use_cpu", False) or not torch.accelerator.is_available(),
            **({"ddp_find_unused_parameters": True} if self.run.adapters_per_task else {}),  # a step trains one task's
            **overrides,
        }
        try:
            return Seq2SeqTrainingArguments(**values)
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise ConfigurationError(f"The training arguments do not fit together: {as_sentence(error)}") from error


def as_sentence(error: Exception) -> str:
    """What a library said, on one line with a full stop."""
    return " ".join(str(error).split()).rstrip(".") + "."
