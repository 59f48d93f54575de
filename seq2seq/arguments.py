"""One JSON file, one experiment: reading it, overriding it, checking every key before anything is done.

    {
        "experiment_name": "rte_tt_lora",                       keys of the run: the fields of RunArguments below
        "model_name_or_path": "t5-base",
        "task_name": "rte",
        "adapter": {"kind": "tt_lora", "rank": 8},              an object or a list of objects, see adapters
        "learning_rate": 0.001, "num_train_epochs": 20          training arguments of transformers, by their own names
    }

On the command line ``key=value`` overrides a key, ``adapter.rank=4`` one inside, ``adapter[0].rank=4`` one of a list; a
value is read as JSON would be (4 is a number, true a truth value, null nothing, [1,2] a list), else as a string.
"""

import json
import re
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import Seq2SeqTrainingArguments

from adapters import AdapterConfig, ConfigurationError, as_configs
from adapters.validation import check_keys, check_type, nearest_name
from seq2seq.tasks import TASKS

PROJECT = Path(__file__).resolve().parents[1]

BASELINES = ("majority", "bag_of_words", "frozen_backbone", "random_backbone")

TRAINING_DEFAULTS: dict[str, Any] = {
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
    "greater_is_better": True,
    "predict_with_generate": True,  # the metrics are those of generated texts
    "report_to": "none",
}

DECIDED_HERE = {
    "output_dir": "the folder is output_root/experiment_name",
    "run_name": "the run is called by experiment_name",
    "resume_from_checkpoint": "an unfinished run resumes by itself",
    "push_to_hub": "a run stays in its folder",
    "hub_token": "a run stays in its folder",
    "fp16": "T5 overflows in float16: use bf16",
    "fp16_full_eval": "T5 overflows in float16: use bf16_full_eval",
    "deepspeed": "runs are spread by torchrun or accelerate, with DDP",
    "local_rank": "torchrun sets it",
    "predict_with_generate": "metrics are always those of generated texts",
    "generation_max_length": "answers have at most max_target_length tokens",
    "remove_unused_columns": "the columns are what the model takes",
    "dataloader_pin_memory": "memory is pinned where there is a GPU",
    "save_only_model": "a run can always be resumed",
}

AT_LEAST: dict[str, float] = {
    "num_train_epochs": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "max_grad_norm": 0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "save_total_limit": 1,
    "generation_num_beams": 1,
    "seed": 0,
    "data_seed": 0,
    "max_source_length": 2,
    "max_target_length": 2,
    "max_train_samples": 1,
    "max_validation_samples": 1,
    "max_test_samples": 1,
}


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """The keys of a run besides ``adapter`` and the training arguments.

    Args:
        experiment_name: name of the run's folder.
        output_root: the folder that holds the runs.
        model_name_or_path: a directory, or a name that transformers finds in its cache or on the hub.
        dtype: dtype of the frozen weights; adapters are float32 in either.
        task_name: a task of ``seq2seq.tasks``; None for files of one's own.
        data_dir: directory with the task's files; None for the project's own, the cache or the hub.
        data_seed: decides the split and the order of rows; the number seeds nothing else.
        train_file, validation_file, test_file: files of one's own, with the columns ``source`` and ``target``.
        max_train_samples, max_validation_samples, max_test_samples: how many rows are taken; None for all.
        max_source_length, max_target_length: longer texts are cut to so many tokens.
        adapter_path: a saved adapter to start from; None to start from the configuration's own start values.
        baselines: what is measured beside the result, of BASELINES above.
        log_to_wandb: whether wandb follows the run; WANDB_MODE=offline needs no account.
        wandb_project: its project there.
        overwrite: whether a finished or different run of this name is thrown away.
    """

    experiment_name: str
    output_root: str = "outputs"
    model_name_or_path: str = "assets/small_world/backbone"
    dtype: Literal["float32", "bfloat16"] = "float32"
    task_name: str | None = None
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
    adapter_path: str | None = None
    baselines: tuple[Literal["majority", "bag_of_words", "frozen_backbone", "random_backbone"], ...] = ()
    log_to_wandb: bool = False
    wandb_project: str = "tensorized-adapters"
    overwrite: bool = False

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return Path(self.output_root).expanduser().absolute() / self.experiment_name

    @property
    def files(self) -> dict[str, str]:
        """The given files of one's own by split."""
        given = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        return {split: path for split, path in given.items() if path is not None}

    @property
    def model_location(self) -> str:
        """A directory here or in the project as an absolute path, else the name as it is."""
        here = Path(self.model_name_or_path).expanduser()
        for path in (here, PROJECT / here):
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
        """The resolved configuration as JSON; ``read_experiment`` of it gives an equal one."""
        run = {f.name: getattr(self.run, f.name) for f in fields(self.run)}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in run.items()}
        return {**plain, "adapter": [config.to_dict() for config in self.adapters], **self.training}

    def training_arguments(self, **overrides: Any) -> Seq2SeqTrainingArguments:
        """transformers' object for this run.

        Raises:
            ConfigurationError: the arguments exclude each other.
        """
        values = {
            **self.training,
            "output_dir": str(self.run.directory / "checkpoints"),
            "data_seed": self.run.data_seed,
            "generation_max_length": self.run.max_target_length,
            "dataloader_pin_memory": torch.cuda.is_available(),
            **overrides,
        }
        try:
            return Seq2SeqTrainingArguments(**values)
        except (ValueError, TypeError, ImportError) as error:
            raise ConfigurationError(f"The training arguments do not fit together: {as_sentence(error)}") from error


def load_experiment(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Experiment:
    """Read a JSON file, apply ``key=value`` overrides, and check the whole.

    Raises:
        ConfigurationError: one sentence that names the key, what was given and what is allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f"A run is described by a JSON file; {str(path)!r} is no file: check the path.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeated_keys)
    except (ValueError, OSError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"A run is described by JSON; {path} cannot be read ({error}): mend that place."
        ) from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"A run is one JSON object; {path} holds a {type(values).__name__}: put it in braces.")
    return read_experiment(override(values, overrides))


def override(values: dict[str, Any], overrides: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """``values`` with each ``dotted.key=value`` set."""
    config = OmegaConf.create(values)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigurationError(
                f"An override is key=value; given was {text!r}: write for example learning_rate=0.001."
            )
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        try:
            OmegaConf.update(config, key, parsed, merge=False, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(
                f"Override {text!r} names no place in the configuration ({reason}): check the key."
            ) from None
    return OmegaConf.to_container(config, resolve=False)


def read_experiment(values: dict[str, Any]) -> Experiment:
    """Check a configuration key by key.

    Raises:
        ConfigurationError: a key is unknown or missing, a value does not fit, or keys exclude each other.
    """
    run_types = get_type_hints(RunArguments)
    training_types = get_type_hints(Seq2SeqTrainingArguments)
    known_training = {f.name for f in fields(Seq2SeqTrainingArguments) if f.init} - set(run_types)
    for key, reason in DECIDED_HERE.items():
        if key in values and not (key == "predict_with_generate" and values[key] is True):
            raise ConfigurationError(
                f"Key {key!r} of the configuration is not set by hand; {values[key]!r} was given: {reason}."
            )
    check_keys(
        values,
        {*run_types, "adapter", *(known_training - set(DECIDED_HERE)), "predict_with_generate"},
        "The configuration",
    )

    if "experiment_name" not in values:
        raise ConfigurationError("A run has a key 'experiment_name', the name of its folder; none was given: add it.")
    run = RunArguments(
        **{key: check_type(key, value, run_types[key], "the run") for key, value in values.items() if key in run_types}
    )
    training = {
        key: check_type(key, value, _plain_type(training_types[key]), "the training arguments")
        for key, value in {**TRAINING_DEFAULTS, **values}.items()
        if key in known_training
    }
    _check_run(run)
    _check_ranges({**training, **{key: getattr(run, key) for key in run_types}})
    _check_training(run, training)
    adapter = values.get("adapter")
    configs = tuple(as_configs({"kind": "none"} if adapter is None else adapter))
    _check_adapters(configs, training)
    return Experiment(run, configs, training)


def as_sentence(error: Exception) -> str:
    """What a library said, on one line with a full stop."""
    return " ".join(str(error).split()).rstrip(".") + "."


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"A key stands once in an object; {repeated!r} stands more than once: remove one.")
    return values


def _plain_type(annotation: Any) -> Any:
    """An enumeration beside str is checked as the names of the enumeration alone."""
    for part in get_args(annotation):
        if isinstance(part, type) and issubclass(part, Enum):
            return Literal[tuple(member.value for member in part)]
    return annotation


def _check_run(run: RunArguments) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run.experiment_name):
        raise ConfigurationError(
            "Key 'experiment_name' is the name of a folder, of letters, digits, '.', '_' and '-'; "
            f"given was {run.experiment_name!r}: choose such a name (the folder's place is output_root)."
        )
    if run.task_name is not None and run.task_name not in TASKS:
        raise ConfigurationError(
            f"Key 'task_name' names a task; given was {run.task_name!r}: {nearest_name(run.task_name, TASKS)}"
        )
    if (run.task_name is None) == (not run.files):
        given = f"task_name={run.task_name!r} and files {sorted(run.files)}"
        raise ConfigurationError(
            "A run has either a task_name or files of its own (train_file, validation_file, test_file); "
            f"given were {given}: give one of the two."
        )
    if run.files and run.data_dir is not None:
        raise ConfigurationError(
            f"Key 'data_dir' belongs to a task_name; given was {run.data_dir!r} beside files: drop one."
        )
    for key in ("train_file", "validation_file", "test_file"):
        path = getattr(run, key)
        if path is not None and not Path(path).expanduser().is_file():
            raise ConfigurationError(f"Key {key!r} names a file; {path!r} is none: check the path.")
    for key in ("data_dir", "adapter_path"):
        path = getattr(run, key)
        if path is not None and not Path(path).expanduser().is_dir():
            raise ConfigurationError(f"Key {key!r} names a directory; {path!r} is none: check the path.")
    if not Path(run.model_location).is_dir() and run.model_location.startswith(("/", ".", "~")):
        raise ConfigurationError(
            "Key 'model_name_or_path' names a directory, or a model in the cache or on the hub; "
            f"{run.model_name_or_path!r} is no directory: check the path."
        )
    if Path(run.output_root).expanduser().is_file():
        raise ConfigurationError(f"Key 'output_root' names a directory; {run.output_root!r} is a file: choose another.")
    if len(set(run.baselines)) < len(run.baselines):
        raise ConfigurationError(
            f"Key 'baselines' names each baseline once; given was {list(run.baselines)}: drop the second."
        )


def _check_ranges(values: dict[str, Any]) -> None:
    for key, low in AT_LEAST.items():
        value = values.get(key)
        if value is not None and value < low:
            raise ConfigurationError(f"Key {key!r} is at least {low}; given was {value}: choose a larger number.")
    steps = values.get("max_steps")
    if steps is not None and steps < 1 and steps != -1:
        raise ConfigurationError(f"Key 'max_steps' counts steps from 1, or is -1 for none; given was {steps}: mend it.")


def _check_training(run: RunArguments, training: dict[str, Any]) -> None:
    if not any(training[key] for key in ("do_train", "do_eval", "do_predict")):
        raise ConfigurationError("One of do_train, do_eval and do_predict is true; all are false: set one to true.")
    reported = training["report_to"]
    for name in [reported] if isinstance(reported, str) else reported or []:
        if name not in ("none", "tensorboard"):
            raise ConfigurationError(
                f"Key 'report_to' is 'none' or 'tensorboard'; given was {name!r}: for wandb set log_to_wandb to true."
            )
    for key, split, needed in (
        ("do_train", "train", training["do_train"]),
        ("do_train", "validation", training["do_train"] and training["eval_strategy"] != "no"),
        ("do_eval", "validation", training["do_eval"]),
    ):
        if run.files and needed and split not in run.files:
            raise ConfigurationError(
                f"Key {key!r} needs the {split} rows; given were the files of {sorted(run.files)}: "
                f"give {split}_file or set {key} to false."
            )
    if run.baselines and run.files and "train" not in run.files:
        raise ConfigurationError("Key 'baselines' needs training rows; no train_file was given: give one.")
    if training["load_best_model_at_end"] and training["save_strategy"] not in (training["eval_strategy"], "best"):
        given = f"{training['save_strategy']!r} beside an eval_strategy of {training['eval_strategy']!r}"
        raise ConfigurationError(
            f"Key 'save_strategy' is that of evaluation where load_best_model_at_end is true; given was {given}: "
            "set both to 'steps' or both to 'epoch'."
        )
    if training["load_best_model_at_end"] and training["eval_strategy"] == "no" and training["do_train"]:
        raise ConfigurationError(
            "Key 'load_best_model_at_end' chooses by evaluation; eval_strategy is 'no': set it to 'steps' or 'epoch', "
            "or load_best_model_at_end to false."
        )


def _check_adapters(configs: tuple[AdapterConfig, ...], training: dict[str, Any]) -> None:
    kinds = [config.kind for config in configs]
    if not configs:
        raise ConfigurationError(
            "Key 'adapter' holds at least one adapter; given was an empty list: add one, or leave it out."
        )
    only_frozen = all(config.kind == "layer_norm" and not config.trainable for config in configs)
    if training["do_train"] and only_frozen:
        raise ConfigurationError(
            f"Key 'adapter' leaves something to train; given was {kinds}: add a kind, or set do_train to false."
        )
