"""Workloads: what goes into the model, what comes out, and how that is trained and scored.

    {"experiment_name": "rte", "workload": "text", "task_name": "rte", ...}

A workload is a frozen dataclass: its fields are the JSON keys that it adds to those of every run, and its methods are
called by a run in this order:

    check            are the keys right, as far as can be told before anything is loaded?
    load_data        rows of every split
    load_model       the model, pretrained or random, without adapters
    make_trainer     a trainer of ``third_party.trainers``
    evaluate         metrics and rows of a split

The runner, sweeps, jobs, resuming, tracking and the report know a workload through this class only. A new workload is a
folder with a subclass, and a line in ``WORKLOADS``.
"""

import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from datasets import Dataset
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from adapters import AdapterConfig, ConfigurationError
from adapters.validation import nearest_name
from seq2seq import SPLITS
from third_party.trainers import AdapterTrainerMixin

DEFAULT_WORKLOAD = "text"
"""The workload of a configuration that names none, such as one written before the key existed."""


@dataclass(frozen=True)
class Prepared:
    """What training needs, loaded and checked: the model with its adapters, the workload's data, the arguments."""

    model: nn.Module
    data: Any
    arguments: TrainingArguments

    @property
    def is_main_process(self) -> bool:
        return self.arguments.process_index == 0


class Evaluation(NamedTuple):
    """Metrics of a split, and its rows by task: records of what went in, what was expected and what came out."""

    metrics: dict[str, float]
    rows: dict[str, list[dict[str, Any]]]


class Baseline(NamedTuple):
    """Something to compare a result with.

    ``measure`` gives the metrics on a split; ``unsupported`` is the reason why this run does not support it, or None.
    """

    label: str
    measure: Callable[[Prepared, str], dict[str, float]]
    unsupported: str | None = None


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """Base of every workload. Every key has a default.

    Metrics have a key ``average_metrics``, by which the best checkpoint is chosen and methods are ranked: larger is
    better. Models have a transformers ``config`` and return an output with ``logits``. Every process of a run calls
    every method.
    """

    name: ClassVar[str]
    """The value of the JSON key ``workload``."""

    arguments_class: ClassVar[type[TrainingArguments]] = TrainingArguments
    reserved_arguments: ClassVar[Mapping[str, str]] = {}
    """Training arguments that this workload sets itself, each with the reason."""

    paths: ClassVar[tuple[str, ...]] = ()
    """Keys that are paths: ~ in them is the home directory."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """The least and the largest value of numeric keys."""

    file_keys: ClassVar[Mapping[str, str]] = {}
    """The keys of your own files, by split."""

    other_names: ClassVar[Mapping[str, str]] = {}
    """What to write instead of names that its keys do not have, for error messages: ``task`` for ``task_name``."""

    flags: ClassVar[tuple[str, ...]] = ("average_metrics",)
    """Metrics that choose checkpoints or flag problems, and are not results themselves."""

    smaller_is_better: ClassVar[Collection[str]] = ()
    """Metrics that choose the checkpoint with their smallest value, as the loss does."""

    untuned_name: ClassVar[str] = "full fine-tuning"
    """What reports call a run without adapters, in which everything trains."""

    setting_names: ClassVar[Mapping[str, str]] = {}
    """Phrases of its own for keys in the names of methods, such as ``{"n_layer": "{} layers"}``."""

    baseline_notes: ClassVar[Mapping[str, str]] = {}
    """What a footnote says about a baseline, by name."""

    report_plots: ClassVar[Mapping[str, tuple[str, Callable[[Path, Sequence[Any]], bool]]]] = {}
    """Plots of a comparison by file name, beside those of ``seq2seq.report.plots`` or in place of one of the same name:
    the title, and what draws methods (``seq2seq.report.methods.Method``) to a path, or returns False if it cannot."""

    notes: ClassVar[Mapping[str, str]] = {}
    """What a footnote says about a result of 0 if one of the flags is 1; the first flag that is 1 decides."""

    seeds: ClassVar[tuple[str, ...]] = ()
    """Numeric keys whose value cannot be wrong within its range, such as seeds: runs that differ in them alone are
    checked once."""

    def __init_subclass__(cls) -> None:
        methods = {name for name, value in vars(Workload).items() if callable(value) or isinstance(value, property)}
        for key in methods & inspect.get_annotations(cls).keys():
            raise TypeError(f"A key of a workload must not hide a method; got {key!r} in {cls.__name__}: rename it.")

    @property
    @abstractmethod
    def task_label(self) -> str:
        """What tables call the run's task."""

    @property
    @abstractmethod
    def model_label(self) -> str:
        """What tables call the base model."""

    @classmethod
    def average_name(cls, metrics: Collection[str]) -> str | None:
        """What reports call ``average_metrics`` beside these metrics; None if it is their mean."""
        return None

    @property
    @abstractmethod
    def metric_names(self) -> Collection[str]:
        """The metrics of the validation split that can choose the best checkpoint, besides the loss."""

    @property
    def splits(self) -> Sequence[str]:
        """The splits for which the run has rows."""
        return SPLITS

    @property
    def split_keys(self) -> Mapping[str, str]:
        """The key that gives the rows of a split in this run, for error messages."""
        return self.file_keys

    @classmethod
    def own_file_keys(cls, config: Mapping[str, Any]) -> dict[str | None, Mapping[str, str]]:
        """The dotted keys of your own files that a configuration uses: by task, None for one without a name, by split.

        Args:
            config: a run's config.json, also one that an earlier version wrote.
        """
        return {None: cls.file_keys}

    @property
    def adapter_tasks(self) -> Sequence[str | None]:
        """The tasks that have their own adapters; None stands for all tasks."""
        return (None,)

    def check(self, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Refuse keys that do not fit each other, the adapters or the training arguments; nothing is loaded yet.

        Raises:
            ConfigurationError: one sentence that names the key.
        """

    @property
    def own_adapters(self) -> Sequence[AdapterConfig]:
        """Adapters that every run of the workload has beside its own, common to all tasks, such as a trained head."""
        return ()

    def of_run(self, adapter: Path) -> Self:
        """The workload as a finished run had it, with what that took from its data, which may be gone.

        Args:
            adapter: the folder of the run's adapter.

        Raises:
            adapters.CheckpointError: the folder cannot be read.
        """
        return self

    def training_arguments(self) -> dict[str, Any]:
        """Training arguments that the workload sets itself."""
        return {}

    @abstractmethod
    def load_data(self, arguments: TrainingArguments) -> Any:
        """The rows of every split, in whatever form the other methods expect as ``prepared.data``.

        Raises:
            ConfigurationError: rows are missing or do not fit. Nothing has been written.
        """

    def load_file(self, path: Path, task: str | None, arguments: TrainingArguments) -> Any:
        """The rows of a file to predict, as ``prepared.data`` with the split ``test``; their targets may be missing.

        If they are, ``evaluate`` returns no metrics.

        Args:
            path: the file.
            task: which task of a run of several they belong to; None for the only one.
            arguments: those of the run.

        Raises:
            ConfigurationError: the workload predicts no files, or the rows do not fit.
        """
        raise ConfigurationError(
            f"A file can be predicted if the run's workload reads one; got the workload {self.name!r}: start a run "
            "with do_predict."
        )

    @abstractmethod
    def load_model(self, random: bool = False) -> nn.Module:
        """The base model without adapters; ``random`` for one of the same architecture that was never trained.

        What it initialises depends on the random state, which ``Experiment.load_model`` sets by the run's seed.
        """

    @abstractmethod
    def make_trainer(self, prepared: Prepared, callbacks: Sequence[TrainerCallback] = ()) -> AdapterTrainerMixin:
        """A ``Trainer`` of transformers with this mixin."""

    @abstractmethod
    def evaluate(self, prepared: Prepared, trainer: AdapterTrainerMixin, split: str) -> Evaluation:
        """Score a split with the adapters as they are."""

    @abstractmethod
    def samples(self, prepared: Prepared) -> Mapping[str, Dataset]:
        """Encoded rows of each task, as the trainer's collator takes them: of the validation split if there is one."""

    def baselines(self) -> Mapping[str, Baseline]:
        """What results of this workload can be compared with, besides the frozen and the random base model."""
        return {}

    def check_text(self, prepared: Prepared, path: Path) -> None:  # noqa: B027 - optional
        """Refuse a text that ``score_text`` would refuse; nothing is written yet.

        Raises:
            ConfigurationError: the file cannot be read, or the model cannot read it.
        """

    def score_text(self, prepared: Prepared, path: Path) -> dict[str, float]:
        """The metrics of a text that is not the run's own, such as its perplexity, with the adapters as they are.

        Raises:
            ConfigurationError: the workload scores no texts, or the file cannot be read.
        """
        raise ConfigurationError(
            f"A text can be scored if the run's model continues texts; got the workload {self.name!r}: leave it out."
        )

    def token_windows(self, path: Path | None, limit: int) -> list[Tensor]:
        """The first tokens of a text, as the model reads them: token ids (1, window) each.

        Args:
            path: a file; None for the run's training text.
            limit: the most tokens in all.

        Raises:
            ConfigurationError: the workload reads no texts, or there is none.
        """
        raise ConfigurationError(
            f"Tokens of a text are read by a model that continues texts; got the workload {self.name!r}: leave it out."
        )

    def table_rows(self, result: Mapping[str, Any]) -> list[list[str]]:
        """More rows of the result's table: name and value, and optionally a footnote about the value."""
        return []

    def page_section(self, directory: Path, result: Mapping[str, Any]) -> str:
        """A section of the run's README.md, in Markdown, whose pictures it draws; empty for none."""
        return ""

    def headline(self, metrics: Mapping[str, float | None]) -> dict[str, str]:
        """The metrics that tables show, as text; of several tasks (<task>/<metric>), those of each and their mean."""
        several = any("/" in name for name in metrics)
        return {
            name: "not finite" if value is None else f"{value:.4f}"
            for name, value in metrics.items()
            if name.rpartition("/")[2] not in self.flags or (several and name == "average_metrics")
        }

    @classmethod
    def note(cls, metrics: Mapping[str, float | None], name: str) -> str | None:
        """What a footnote says about a metric that is 0; None if there is nothing to say."""
        if metrics.get(name) != 0:
            return None
        task = name.rpartition("/")[0]
        flags = {flag: metrics.get(f"{task}/{flag}" if task else flag) for flag in cls.notes}
        return next((cls.notes[flag] for flag, value in flags.items() if value == 1), None)


WORKLOADS: dict[str, str | type[Workload]] = {
    "text": "seq2seq.text.workload:TextWorkload",
    "classification": "seq2seq.classification.workload:ClassificationWorkload",
    "causal": "seq2seq.causal.workload:CausalWorkload",
    "in_context": "seq2seq.in_context.workload:InContextWorkload",
    "swipe": "seq2seq.swipe.workload:SwipeWorkload",
}
"""Workloads by name; a module is imported when a run uses it."""


def workload_class(name: Any) -> type[Workload]:
    """The workload of this name.

    Raises:
        ConfigurationError: there is none; the message has the nearest name.
    """
    if not isinstance(name, str) or name not in WORKLOADS:
        raise ConfigurationError(f"Key 'workload' names a workload; got {name!r}: {nearest_name(str(name), WORKLOADS)}")
    found = WORKLOADS[name]
    return pkgutil.resolve_name(found) if isinstance(found, str) else found
