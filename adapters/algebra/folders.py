"""Which folder is whose: PEFT names its method in adapter_config.json, ``adapters.save`` does not."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

import t3nsor as t3
from adapters.algebra.live import ONE_TENSOR, Parts
from adapters.algebra.native import read_native, write_native, write_one_tensor
from adapters.algebra.peft_folders import LORA, read_config, read_peft, write_lora, write_tuner
from adapters.algebra.sites import Sites
from adapters.saved.checkpoint import CheckpointError

Directory = str | os.PathLike


def read_deltas(directory: Directory, task: str | None = None) -> Parts:
    """See ``Deltas.read``."""
    directory = Path(directory)
    if "peft_type" not in read_config(directory):
        return read_native(directory, task)
    if task is not None:
        raise CheckpointError(
            f"A folder of PEFT has one adapter, for all tasks; got task {task!r} for {directory}: leave it out."
        )
    return read_peft(directory)


def check_one_base(directories: Iterable[Directory]) -> None:
    """Refuse folders that name two bases; those that name none may be of any.

    Raises:
        CheckpointError: two names differ, or a folder cannot be read.
    """
    named = {directory: read_config(Path(directory)).get("base_model_name_or_path") for directory in directories}
    first, *others = dict.fromkeys(base for base in named.values() if base) or [None]
    for directory, base in named.items():
        if base in others:
            raise CheckpointError(
                f"Adapters are vectors where they are of one base (base_model_name_or_path); got {first!r} and, "
                f"in {directory}, {base!r}: leave one out, or write one name into both where they are one model."
            )


def check_one_task(directories: Iterable[Directory]) -> None:
    """Refuse folders with modules for several tasks, of which a sum has those of one only.

    Raises:
        CheckpointError: a folder has modules for more than one task, or cannot be read.
    """
    for directory in directories:
        entries = read_config(Path(directory)).get("adapters", [])
        tasks = dict.fromkeys(entry["task"] for entry in entries)
        if len(tasks) > 1:
            raise CheckpointError(
                f"A sum is written for one task, or for all; got {directory} with modules for the tasks "
                f"{list(tasks)}: take Deltas.read(directory, task) for each task, and write each sum by itself."
            )


def write_deltas(
    directory: Directory,
    like: Directory,
    trains: Mapping[str, t3.TensorTrain],
    biases: Mapping[str, Tensor],
    sites: Sites | None,
) -> None:
    """See ``Deltas.write``."""
    directory, like = Path(directory), Path(like)
    method = read_config(like).get("peft_type")
    if sites is not None and method is None:
        write_one_tensor(directory, like, trains[ONE_TENSOR], biases, sites)
    elif sites is not None:
        raise CheckpointError(
            f"One tensor for a whole model is written like a folder of adapters.save; {like} is one of PEFT: write "
            "per_linear() instead."
        )
    elif method is None:
        write_native(directory, like, trains, biases)
    else:
        write = write_lora if method == LORA else write_tuner
        write(directory, like, trains, biases)
