"""The JSON keys of workloads on tasks, and what follows from them: which model, which tasks, whose files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from seq2seq import PROJECT, SPLITS
from seq2seq.tasks.data_names import data_set_name
from seq2seq.tasks.described import DescribedTasks
from seq2seq.tasks.metrics import average_over_tasks
from seq2seq.tasks.mixing import Mixture
from seq2seq.tasks.registry import CUSTOM_FILES, get_task
from seq2seq.tasks.task_spec import TaskSpec
from seq2seq.workload import Workload


@dataclass(frozen=True, kw_only=True)
class TaskKeys(Workload):
    """Base of the workloads on tasks; the fields are the keys.

    Args:
        model_name_or_path: a directory, or a name that transformers finds in its cache or on the hub.
        dtype: dtype of the frozen weights; adapters are float32 in either.
        task_name: a task of ``seq2seq.tasks.registry``, of ``tasks`` or of an installed package; None for a mixture or
            for your own files.
        tasks: your own tasks by name, see ``seq2seq.tasks.described``.
        mixture: several tasks at once, see ``seq2seq.tasks.mixing``.
        data_dir: directory with the task's files, or with a folder for each task of a mixture; None for the project's
            own tasks, the cache or the hub.
        split_policy: how the labelled rows are divided, see ``seq2seq.tasks.splits``; None for the task's own way.
        data_seed: decides the split and which rows a limit keeps; ``seed`` decides their order.
        train_file, validation_file, test_file: your own files, with the columns of ``own_files``.
        data_name: what results call the task of your own files; None for a name made of the file's.
        max_train_samples, max_validation_samples, max_test_samples: limits on the rows of each task; None for all.
    """

    own_files: ClassVar[TaskSpec] = CUSTOM_FILES
    """The task of your own files."""

    file_keys: ClassVar[Mapping[str, str]] = {split: f"{split}_file" for split in SPLITS}
    paths = ("model_name_or_path", "data_dir", *file_keys.values())
    other_names: ClassVar[Mapping[str, str]] = {
        "data": "data_dir, or train_file, validation_file and test_file",
        "dataset": "task_name, or train_file, validation_file and test_file",
        "metric": "metric_for_best_model, or tasks.<name>.metrics",
        "model": "model_name_or_path",
        "task": "task_name",
        **{key: f"tasks.<name>.{key}" for key in ("files", "labels", "metrics", "source", "target", "texts")},
    }
    notes: ClassVar[Mapping[str, str]] = {
        "constant_predictions": "all answers are equal; the correlation is then reported as 0",
    }
    seeds = ("data_seed",)
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "data_seed": (0, 2**32 - 1),
        "max_train_samples": (1, 1e12),
        "max_validation_samples": (1, 1e12),
        "max_test_samples": (1, 1e12),
    }

    model_name_or_path: str = "assets/small_world/backbone"
    dtype: Literal["float32", "bfloat16"] = "float32"
    task_name: str | None = None
    tasks: DescribedTasks | None = None
    mixture: Mixture | None = None
    data_dir: str | None = None
    split_policy: Literal["small", "large", "tenth"] | None = None
    data_seed: int = 42
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    data_name: str | None = None
    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks by name; none if the files are your own."""
        if self.mixture is not None:
            return self.mixture.tasks
        return () if self.task_name is None else (self.task_name,)

    @property
    def specs(self) -> list[TaskSpec]:
        """The tasks."""
        key = "task_name" if self.mixture is None else "mixture.tasks"
        found = [get_task(name, self.described, key) for name in self.task_names]
        found = found or [replace(self.own_files, files=self.files)]
        if self.split_policy is not None:
            found = [replace(spec, split=self.split_policy) for spec in found]
        return [replace(spec, files={split: located(path) for split, path in spec.files.items()}) for spec in found]

    @property
    def described(self) -> dict[str, TaskSpec]:
        """Your own tasks by name."""
        return {} if self.tasks is None else self.tasks.specs

    @property
    def task_label(self) -> str:
        """The tasks; of your own files, the name of the data set, which is that of the file results are measured on."""
        measured = next((self.files[split] for split in reversed(SPLITS) if split in self.files), self.own_files.name)
        return " + ".join(self.task_names) or self.data_name or data_set_name(measured)

    @property
    def model_label(self) -> str:
        return self.model_name_or_path

    @property
    def model_location(self) -> str:
        """A directory here or in the project as an absolute path, else the name as it is."""
        return located(self.model_name_or_path)

    @property
    def files(self) -> dict[str, str]:
        """Your own files by split."""
        given = {split: getattr(self, key) for split, key in self.file_keys.items()}
        return {split: path for split, path in given.items() if path is not None}

    @property
    def splits(self) -> Sequence[str]:
        """The splits that all tasks have."""
        return tuple(split for split in SPLITS if all(split in (spec.files or SPLITS) for spec in self.specs))

    @property
    def split_keys(self) -> Mapping[str, str]:
        if not self.task_names:
            return self.file_keys
        lacking = [(split, spec) for split in SPLITS for spec in self.specs if spec.files and split not in spec.files]
        return {split: f"tasks.{spec.name}.files.{split}" for split, spec in lacking}

    @classmethod
    def own_file_keys(cls, config: Mapping[str, Any]) -> dict[str | None, Mapping[str, str]]:
        names = (config.get("mixture") or {}).get("tasks") or [config.get("task_name")]
        described = [name for name in names if name in (config.get("tasks") or {})]
        keys = {name: {split: f"tasks.{name}.files.{split}" for split in SPLITS} for name in described}
        return keys | ({None: cls.file_keys} if names == [None] else {})

    @property
    def metric_names(self) -> Collection[str]:
        names = {spec.name: [*spec.metrics, "average_metrics"] for spec in self.specs}
        return set(average_over_tasks({task: dict.fromkeys(metrics, 0.0) for task, metrics in names.items()}))

    @property
    def adapters_per_task(self) -> bool:
        """Whether each task has its own adapters."""
        return self.mixture is not None and self.mixture.adapters == "per_task"

    @property
    def adapter_tasks(self) -> Sequence[str | None]:
        return self.task_names if self.adapters_per_task else (None,)


def located(path: str) -> str:
    """A path that exists here or in the project as an absolute one, else as it is."""
    found = next((there for there in (Path(path), PROJECT / path) if there.exists()), None)
    return path if found is None else str(found.absolute())
