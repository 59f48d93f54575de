"""What an experiment consists of: the keys of every run, a workload, extras, adapters, training arguments.

An extra is something that a run may add to its result, such as baselines: one object with the few hooks that it needs.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments, set_seed

import adapters
from adapters import AdapterConfig, ConfigurationError
from adapters.learning_rates import RateMultipliers
from seq2seq.errors import as_sentence, refusing
from seq2seq.workload import Prepared, Workload
from third_party.trainers import AdapterTrainerMixin


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """The keys of every run, besides those of its workload, its extras, ``adapter`` and the training arguments.

    Args:
        experiment_name: name of the run folder.
        output_root: the folder that holds the runs.
        adapter_path: a saved adapter to start from; None for the initial values of the configuration.
        log_to_wandb: whether wandb tracks the run; WANDB_MODE=offline needs no account.
        wandb_project: its project there.
        learning_rate_multipliers: of single cores, see ``adapters.learning_rates``; None for one rate.
        overwrite: whether a finished or different run of this name is replaced.
    """

    experiment_name: str
    output_root: str = "outputs"
    adapter_path: str | None = None
    log_to_wandb: bool = False
    wandb_project: str = "tensorized-adapters"
    learning_rate_multipliers: RateMultipliers | None = None
    overwrite: bool = False

    @property
    def directory(self) -> Path:
        """The run folder."""
        return Path(self.output_root).absolute() / self.experiment_name

    def moved_to(self, directory: Path) -> "RunArguments":
        """Those of a run whose folder is there now."""
        return replace(self, output_root=str(directory.parent), experiment_name=directory.name)


@dataclass(frozen=True, kw_only=True)
class Extra:
    """Something that a run may add; its fields are the JSON keys that enable it. By default a hook does nothing."""

    changes_training: ClassVar[bool] = False
    """Whether it affects training; if not, it can be added to a finished run."""

    acts_alone: ClassVar[bool] = False
    """Whether a run has something to do for it even if it neither trains nor evaluates."""

    pictures: ClassVar[tuple[str, ...]] = ()
    """Files that it draws into the run folder, for trackers."""

    def check(self, experiment: "Experiment") -> None:
        """Refuse keys that do not fit the experiment; nothing is loaded yet."""

    def base_model(self, experiment: "Experiment", random: bool) -> nn.Module | None:
        """The base model of the run if this extra changes it, see ``Workload.load_model``; None if it does not."""

    def check_prepared(self, experiment: "Experiment", prepared: Prepared) -> None:
        """Refuse what the loaded data and model do not support; nothing is written yet."""

    def opened(self, experiment: "Experiment", prepared: Prepared) -> None:
        """Write into the run folder, on the main process; nothing has trained yet, and the others wait."""

    def callbacks(self, directory: Path | None) -> list[TrainerCallback]:
        """What it does during training; it writes its files into ``directory``, or none if that is None."""
        return []

    def before(self, experiment: "Experiment", prepared: Prepared) -> Any:
        """What it measures before training, on every process; not called if nothing is trained."""

    def after(
        self, experiment: "Experiment", prepared: Prepared, directory: Path, before: Any, earlier: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Its entries for metrics.json, on every process.

        Args:
            directory: the run folder.
            before: what ``before`` returned; None if nothing was trained.
            earlier: the earlier result that this run adds to; empty if the run trained.
        """
        return {}

    def is_satisfied_by(self, result: Mapping[str, Any]) -> bool:
        """Whether an earlier result has all that this extra asks for."""
        return True

    def table_rows(self, experiment: "Experiment", result: Mapping[str, Any]) -> list[list[str]]:
        """Rows of the result's table: name and value, and optionally a footnote about the value."""
        return []

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        """A section of the run's README.md, in Markdown, whose pictures it draws; empty for none."""
        return ""

    def tables(self, result: Mapping[str, Any]) -> dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]:
        """Tables for trackers by name, as header and rows."""
        return {}


@dataclass(frozen=True)
class Experiment:
    """A checked configuration.

    Args:
        training: transformers' training arguments by keyword.
        sweep: the experiment_name of the sweep that the run is a cell of, for trackers; a cell is an ordinary run.
    """

    run: RunArguments
    workload: Workload
    extras: tuple[Extra, ...]
    adapters: tuple[AdapterConfig, ...]
    training: dict[str, Any] = field(default_factory=dict)
    sweep: str | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as JSON, which ``read_experiment`` reads back; without ``overwrite``."""
        keys = {f.name: getattr(part, f.name) for part in (self.run, self.workload, *self.extras) for f in fields(part)}
        del keys["overwrite"]
        return {
            "workload": self.workload.name,
            **{key: _plain(value) for key, value in keys.items()},
            "adapter": [config.to_dict() for config in self.adapters],
            **self.training,
        }

    def training_arguments(self) -> TrainingArguments:
        """The ``TrainingArguments`` of this run.

        Raises:
            ConfigurationError: the arguments exclude each other.
        """
        chosen_by = (self.training.get("metric_for_best_model") or "loss").removeprefix("eval_")
        smaller = {"greater_is_better": False} if chosen_by in self.workload.smaller_is_better else {}
        untrained = {} if self.training["do_train"] else {"eval_strategy": "no", "load_best_model_at_end": False}
        values = {
            **smaller,
            **copy.deepcopy(self.training),  # transformers writes defaults into fsdp_config
            **untrained,
            "output_dir": str(self.run.directory / "checkpoints"),
            "data_seed": self.training["seed"],  # the seed of the order of rows
            "report_to": "none",  # the run has its own trackers
            "dataloader_pin_memory": torch.cuda.is_available(),
            # without an accelerator, several processes find each other only if told that they are on a CPU
            "use_cpu": self.training.get("use_cpu", False) or not torch.accelerator.is_available(),
            **self.workload.training_arguments(),
        }
        try:
            return self.workload.arguments_class(**values)
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise ConfigurationError(f"The training arguments do not fit together: {as_sentence(error)}") from error

    def load_model(self, random: bool = False) -> nn.Module:
        """The base model without adapters; what is new in it, such as a head, depends on the run's seed alone."""
        set_seed(self.training["seed"])
        changed = (extra.base_model(self, random) for extra in self.extras)
        model = next((model for model in changed if model is not None), None)
        if model is None:
            return self.workload.load_model(random)
        set_seed(self.training["seed"])  # what comes next does not depend on how the model was made
        return model

    def make_trainer(self, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()) -> AdapterTrainerMixin:
        """The workload's trainer, with the learning rates of this run."""
        trainer = self.workload.make_trainer(prepared, callbacks)
        trainer.rate_multipliers = self.run.learning_rate_multipliers
        return trainer

    def attach(self, model: nn.Module) -> nn.Module:
        """Attach the run's adapters to a base model, once for each task that has its own, and those of its workload.

        Raises:
            ConfigurationError: the adapters do not fit the model.
        """
        with refusing("adapter", ", ".join(config.kind for config in self.adapters)):
            for task in self.workload.adapter_tasks if self.adapters else ():
                adapters.attach(model, list(self.adapters), task)
            if others := [config for config in self.workload.own_adapters if config not in self.adapters]:
                adapters.attach(model, others)
        return model


def _plain(value: Any) -> Any:
    """A key's value in its JSON form."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value
