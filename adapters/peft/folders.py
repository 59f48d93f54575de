"""The folders that a conversion reads: one of our PEFT tuner, and that of the base model."""

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig

from adapters.compiled import original_path
from adapters.peft.configuration import TensorTrainConfig
from adapters.saved.architecture import architecture_of_config
from adapters.saved.folder import CONFIG_NAME, CheckpointError, FolderKind, read_config, read_tensors


def read_tuner(directory: Path) -> tuple[TensorTrainConfig, dict[str, Tensor]]:
    """Return the configuration and the tensors in a folder of our tuner.

    Raises:
        CheckpointError: files are missing or invalid, or of another method.
    """
    values = read_config(directory, FolderKind.TUNER)
    try:
        config = TensorTrainConfig.from_peft_type(**values)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{CONFIG_NAME} holds a valid TensorTrainConfig; got another one in {directory} "
            f"({str(error).rstrip('.')}): save the adapter again."
        ) from None
    return config, {original_path(name): tensor for name, tensor in read_tensors(directory)[0].items()}


def base_architecture(base: str | None, directory: Path) -> dict[str, Any]:
    """Return the architecture of a base model, given by path or name, as ``adapters.save`` stores it.

    Raises:
        CheckpointError: there is no such model.
    """
    try:
        config = AutoConfig.from_pretrained(base) if base else None
    except (OSError, ValueError):
        config = None
    if config is None:
        raise CheckpointError(
            f"The architecture of a converted adapter is read from its base model; got {base!r} for {directory}, "
            "which cannot be found: pass its path or name as base."
        )
    return architecture_of_config(config)
