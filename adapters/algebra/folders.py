"""Which folder is whose: PEFT names its method in adapter_config.json, ``adapters.save`` does not."""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

import t3nsor as t3
from adapters.algebra.live import ONE_TENSOR, Parts
from adapters.algebra.native import read_native, write_native, write_one_tensor
from adapters.algebra.peft_folders import LORA, read_config, read_peft, write_lora, write_tuner
from adapters.algebra.sites import Sites
from adapters.checkpoint import CheckpointError


def read_deltas(directory: str | os.PathLike, task: str | None = None) -> Parts:
    """See ``Deltas.read``."""
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
