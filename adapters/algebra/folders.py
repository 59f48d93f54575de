"""Read and write deltas in folders of each kind, and check that several folders can be combined."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

import t3nsor as t3
from adapters.algebra.base_samples import warn_of_other_bases
from adapters.algebra.live import ONE_TENSOR, Parts
from adapters.algebra.lora import read_lora_deltas, write_lora
from adapters.algebra.native import read_native, write_native, write_one_tensor
from adapters.algebra.sites import Sites
from adapters.algebra.tuner import read_tuner_deltas, write_tuner
from adapters.saved.folder import CheckpointError, FolderKind, folder_kind, read_config

Directory = str | os.PathLike


def read_deltas(directory: Directory, task: str | None = None) -> Parts:
    """See ``Deltas.read``."""
    directory = Path(directory)
    config = read_config(directory)
    kind = folder_kind(config, directory)
    if kind is FolderKind.NATIVE:
        return read_native(directory, task)
    if task is not None:
        raise CheckpointError(
            f"A folder of PEFT has one adapter, for all tasks; got task {task!r} for {directory}: leave it out."
        )
    return *(read_lora_deltas if kind is FolderKind.LORA else read_tuner_deltas)(config, directory), None


def write_deltas(
    directory: Directory,
    like: Directory,
    trains: Mapping[str, t3.TensorTrain],
    biases: Mapping[str, Tensor],
    sites: Sites | None,
) -> None:
    """See ``Deltas.write``."""
    directory, like = Path(directory), Path(like)
    kind = folder_kind(read_config(like), like)
    if sites is not None and kind is FolderKind.NATIVE:
        write_one_tensor(directory, like, trains[ONE_TENSOR], biases, sites)
    elif sites is not None:
        raise CheckpointError(
            f"One tensor for the whole model is written to folders of adapters.save; got like={str(like)!r}, a folder "
            "of PEFT: write per_linear() instead."
        )
    else:
        writers = {FolderKind.NATIVE: write_native, FolderKind.TUNER: write_tuner, FolderKind.LORA: write_lora}
        writers[kind](directory, like, trains, biases)


def check_one_base(directories: Iterable[Directory]) -> None:
    """Check that folders name one base model; a folder that names none is not checked. Other weights are a warning.

    Raises:
        CheckpointError: two names differ, or a folder cannot be read.
    """
    directories = [Path(directory) for directory in directories]
    bases = {directory: read_config(directory).get("base_model_name_or_path") for directory in directories}
    first, *others = dict.fromkeys(base for base in bases.values() if base) or [None]
    for directory, base in bases.items():
        if base in others:
            raise CheckpointError(
                f"Only adapters of the same base (base_model_name_or_path) are added and compared; got {first!r} and "
                f"{base!r} in {directory}: leave one out, or write one name into both if it is the same model."
            )
    warn_of_other_bases(directories)


def check_one_task(directories: Iterable[Directory]) -> None:
    """Check that no folder has modules for several tasks: a sum would keep those of only one.

    Raises:
        CheckpointError: a folder has modules for more than one task, or cannot be read.
    """
    for directory in directories:
        entries = read_config(Path(directory)).get("adapters", [])
        tasks = dict.fromkeys(entry["task"] for entry in entries)
        if len(tasks) > 1:
            raise CheckpointError(
                f"A sum is written for one task, or for all; got modules for the tasks {list(tasks)} in {directory}: "
                "use Deltas.read(directory, task) for each task, and write each sum to a separate folder."
            )
