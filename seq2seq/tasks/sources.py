"""Load the splits of a task from a directory, the local cache or the hub, or from your own files.

    load_splits(get_task("rte"), data_dir="/data/glue")       a registered task
    load_files({"train": "a.tsv", "validation": "b.jsonl"})   your own files with the columns source and target

A task of user-defined files has its rows there. Any other is looked up in the directory, then in the cache, then on the
hub; the first source that has it is used.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi

from seq2seq import PROJECT
from seq2seq.tasks.files import READERS, Header, Row, list_rows, read_rows
from seq2seq.tasks.hub import hub_error
from seq2seq.tasks.registry import CUSTOM_FILES
from seq2seq.tasks.rows import to_dataset
from seq2seq.tasks.splits import SPLIT_POLICIES
from seq2seq.tasks.task_spec import TaskSpec

logger = logging.getLogger(__name__)

FILE_NAMES = {
    "train": ("train", "train-v1.1"),
    "validation": ("validation", "dev", "val", "dev-v1.1"),
    "test": ("test",),
    "validation_matched": ("validation_matched", "dev_matched"),
    "validation_mismatched": ("validation_mismatched", "dev_mismatched"),
}
"""Possible names of the files of a split, without suffix."""


def load_splits(spec: TaskSpec, *, data_dir: str | Path | None = None, data_seed: int = 42) -> DatasetDict:
    """Load the train, validation and test split of a task.

    Args:
        spec: the task.
        data_dir: the task's folder, or a directory that contains it under its official name or the hub's. It holds tsv,
            csv, jsonl, json or parquet files with the official columns or the hub's. The project's own tasks need none.
        data_seed: decides which labelled rows become validation and which test.

    Returns:
        Splits with the columns `source` (or `text` and `text_pair`, see `TaskSpec.of_texts`), `target` and `row` (the
        number of the row in its file, from 1), plus, if the task has them, `answers` (a list of all accepted answers)
        and `group` (the question that a row belongs to; no question is in two splits).

    Raises:
        ValueError: no source has the data, or the rows do not belong to the task.
    """
    if spec.files:
        return _load_described(spec)
    needed, make_splits = SPLIT_POLICIES[spec.split]
    rows = _rows_from_directory(spec, data_dir, needed) or _rows_from_cache_or_hub(spec, data_dir)
    parts = {}
    for split in needed:
        parts[split], incomplete = to_dataset(spec, rows[split], f"split {split!r} of task {spec.name!r}")
        if incomplete:
            numbers = list_rows(incomplete)
            logger.warning(
                "%s: skipped %d incomplete rows of split %s (%s).", spec.name, len(incomplete), split, numbers
            )
        _warn_of_empty(spec, parts[split], f"split {split}")
    return DatasetDict(make_splits(parts, data_seed))


def _load_described(spec: TaskSpec) -> DatasetDict:
    """The splits of a task of user-defined files, whose rows must be complete."""
    splits = {}
    for split, path in spec.files.items():
        splits[split], incomplete = to_dataset(spec, read_rows(path), str(Path(path).absolute()))
        if incomplete:
            raise ValueError(
                f"Each row has the columns {', '.join(sorted(spec.columns))}; got {len(incomplete)} rows in {path} "
                f"that lack one or have too many cells ({list_rows(incomplete)}): complete or remove them."
            )
        _warn_of_empty(spec, splits[split], str(path))
    return DatasetDict(splits)


def _warn_of_empty(spec: TaskSpec, rows: Dataset, origin: str) -> None:
    for column in (next(iter(spec.inputs)), "target"):
        empty = [row for row, text in zip(rows["row"], rows[column], strict=True) if not text.strip()]
        if empty:
            numbers = list_rows(empty)
            logger.warning("%s: %d %ss of %s are empty (%s).", spec.name, len(empty), column, origin, numbers)


def is_task_folder(directory: str | Path) -> bool:
    """Whether the directory itself contains the files of a split."""
    return any(_split_files(Path(directory).expanduser(), split) for split in FILE_NAMES)


def load_files(files: Mapping[str, str | Path]) -> DatasetDict:
    """Load your own files as splits: `files` maps "train", "validation", "test" (or some of them) to paths.

    The files have the columns `source` and `target`; other columns are ignored. In jsonl, json and parquet a target may
    be a list of accepted answers; training uses the first.

    Raises:
        ValueError: a file is missing, unreadable or empty, or lacks a column or a cell.
    """
    return load_splits(replace(CUSTOM_FILES, files={split: str(path) for split, path in files.items()}))


def _rows_from_directory(
    spec: TaskSpec, data_dir: str | Path | None, needed: Iterable[str]
) -> dict[str, Iterator[Row]] | None:
    for folder in _folders(spec, data_dir):
        files = {split: _split_files(folder, split) for split in needed}
        if any(files.values()):
            missing = [split for split, paths in files.items() if not paths]
            if missing:
                names = " or ".join(f"{name}.*" for split in missing for name in FILE_NAMES[split])
                raise ValueError(
                    f"Task {spec.name!r} needs the splits {', '.join(needed)}; got {folder} without "
                    f"{', '.join(missing)}: add {names} ({', '.join(READERS)})."
                )
            return {split: _chain(paths, spec.file_header) for split, paths in files.items()}
    return None


def _folders(spec: TaskSpec, data_dir: str | Path | None) -> list[Path]:
    """Candidate folders of the task: the official name, the hub's, the registered one, and the directory itself."""
    if data_dir is None:
        return [PROJECT / spec.data_dir / spec.folder] if spec.data_dir else []
    root = Path(data_dir).expanduser().absolute()
    if not root.is_dir():
        raise ValueError(f"data_dir must be an existing directory; got {root}: fix the path or leave data_dir out.")
    names = [spec.folder, spec.hub[1] if spec.hub else spec.name, spec.name, "."]
    return [root / name for name in dict.fromkeys(names)]


def _split_files(folder: Path, split: str) -> list[Path]:
    for name in FILE_NAMES[split]:
        for suffix in READERS:
            if (folder / f"{name}{suffix}").is_file():
                return [folder / f"{name}{suffix}"]
        if shards := sorted(folder.glob(f"{name}-*-of-*.parquet")):
            return shards
    return []


def _chain(paths: list[Path], header: Header | None) -> Iterator[Row]:
    for path in paths:
        yield from read_rows(path, header)


def _rows_from_cache_or_hub(spec: TaskSpec, data_dir: str | Path | None) -> DatasetDict:
    directory = f"data_dir {Path(data_dir).expanduser().absolute()} has no files for it" if data_dir else "no data_dir"
    if spec.hub is None:
        raise ValueError(
            f"Task {spec.name!r} ships with the project; got no files in any of "
            f"{', '.join(map(str, _folders(spec, data_dir)))}: restore them, or set data_dir to a copy of them."
        )
    try:
        return load_hub_dataset(*spec.hub)
    except ValueError as error:
        raise ValueError(
            f"Task {spec.name!r} is loaded from a local directory, the local cache or the hub, in this order; got "
            f"{directory}, {error}: set data_dir to a directory with {spec.folder}/train.*, or go online once."
        ) from error


def load_hub_dataset(repository: str, configuration: str | None) -> DatasetDict:
    """A data set of the hub, from the local cache or else from the hub.

    Raises:
        ValueError: neither has it; what each said.
    """
    name = f"hf://datasets/{repository}"  # never a folder of that name in the working directory
    with _cache_only(), contextlib.suppress(OSError, ValueError):
        return datasets.load_dataset(name, configuration)
    reason = "HF_HUB_OFFLINE is set"
    if not datasets.config.HF_HUB_OFFLINE:
        error = hub_error(HfApi().dataset_info, repository)
        try:
            if error is None:
                return datasets.load_dataset(name, configuration)
        except Exception as failure:  # any failure on the way from the hub means that the data are not available
            error = failure
        reason = f"{type(error).__name__}: {error}"
    raise ValueError(
        f"a cache {datasets.config.HF_DATASETS_CACHE} without {repository} ({configuration}), and no data from the hub "
        f"({reason})"
    )


@contextlib.contextmanager
def _cache_only() -> Iterator[None]:
    """Restrict `datasets` to its local cache."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
