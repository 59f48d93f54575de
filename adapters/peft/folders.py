"""What a conversion reads and writes: folders of PEFT, the architecture of a base, and a new folder as a whole."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from adapters.base.architectures import architecture_values
from adapters.peft.configuration import TensorTrainConfig
from adapters.saved.checkpoint import CONFIG_NAME, WEIGHTS_NAME, CheckpointError


def read_config(directory: Path) -> TensorTrainConfig:
    """The configuration in a folder of PEFT; CheckpointError where there is none of our tuner."""
    try:
        config = PeftConfig.from_pretrained(directory)
    except KeyError as error:
        raise CheckpointError(
            f"Adapters of the method TT_LORA are converted; {directory} holds peft_type={error}, which PEFT does not "
            "know: import the package that registers it, and load it through PEFT."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"A folder of PEFT holds {CONFIG_NAME}; {directory} has none that can be read ({error}): check the path."
        ) from None
    if type(config) is not TensorTrainConfig:
        raise CheckpointError(
            f"Adapters of the method TT_LORA are converted; {directory} holds {config.peft_type}: "
            "load it through PEFT, or use a kind peft:<TYPE>."
        )
    return config


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """The tensors in a folder of PEFT; CheckpointError where there are none."""
    try:
        return load_file(directory / WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"A folder of PEFT holds {WEIGHTS_NAME}; {directory} has none that can be read ({error}): save it again."
        ) from None


def write_folder(destination: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a folder beside ``destination``, then move it into place as a whole."""
    destination = destination.resolve()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(
            f"A conversion is written to a folder that is new or empty; {destination} is not: choose another one."
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as beside:
        folder = Path(beside) / destination.name
        folder.mkdir()
        write(folder)
        os.replace(folder, destination)


def architecture_of(base: str | None, directory: Path) -> dict[str, Any]:
    """What of the base's configuration a folder of ``adapters.save`` names."""
    try:
        config = AutoConfig.from_pretrained(base) if base else None
    except (OSError, ValueError):
        config = None
    if config is None:
        raise CheckpointError(
            f"A folder of adapters.save names its base's architecture, which is read from the base model; for "
            f"{directory} that is {base!r}, which is not there: say where it is by base."
        )
    return architecture_values(config)
