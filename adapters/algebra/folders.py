"""Which folder is whose: PEFT names its method in adapter_config.json, ``adapters.save`` does not."""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

import t3nsor as t3
from adapters.algebra.native import read_native, write_native
from adapters.algebra.peft_folders import LORA, read_config, read_peft, write_lora, write_tuner
from adapters.checkpoint import CheckpointError


def read_deltas(
    directory: str | os.PathLike, task: str | None = None
) -> tuple[dict[str, t3.TensorTrain], dict[str, Tensor]]:
    """T (out, in) and c (out,) by path; see ``Deltas.read``."""
    directory = Path(directory)
    if "peft_type" not in read_config(directory):
        return read_native(directory, task)
    if task is not None:
        raise CheckpointError(
            f"A folder of PEFT has one adapter, for all tasks; given was task {task!r} for {directory}: leave it out."
        )
    return read_peft(directory)


def write_deltas(
    directory: str | os.PathLike,
    like: str | os.PathLike,
    trains: Mapping[str, t3.TensorTrain],
    biases: Mapping[str, Tensor],
) -> None:
    """See ``Deltas.write``."""
    directory, like = Path(directory), Path(like)
    config = read_config(like)
    if "peft_type" not in config:
        write_native(directory, like, trains, biases)
    else:
        write = write_lora if config["peft_type"] == LORA else write_tuner
        write(directory, like, trains, biases)
