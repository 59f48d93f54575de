"""The folders that a conversion reads: one of our PEFT tuner, and that of the base model."""

from pathlib import Path
from typing import Any

from peft import TaskType
from torch import Tensor, nn
from transformers import AutoConfig

from adapters.base.heads import head_parameters
from adapters.compiled import original_path
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.task_types import AUTO_OF_TASK, WITH_HEAD
from adapters.saved.architecture import (
    NUM_LABELS,
    architecture_of_config,
    auto_class,
    base_without_weights,
    class_by_auto,
)
from adapters.saved.folder import CONFIG_NAME, PEFT_PREFIX, CheckpointError, FolderKind, read_config, read_tensors


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


def task_type(base: nn.Module, trains_head: bool) -> TaskType | None:
    """PEFT's task type of a base; None if PEFT has none that fits.

    One with a head would train it, even if it has not been trained, and that of features needs a text.
    """
    auto = auto_class(base.config.model_type, type(base).__name__)
    found = next((task for task, name in AUTO_OF_TASK.items() if name == auto), None)
    return None if found == TaskType.FEATURE_EXTRACTION or (found in WITH_HEAD and not trains_head) else found


def base_architecture(
    base: str | None, described: TensorTrainConfig, tensors: dict[str, Tensor], directory: Path
) -> tuple[dict[str, Any], list[str] | None]:
    """The architecture of a base model as ``adapters.save`` stores it, and the labels of its outputs.

    The class of the model is that of the task type or, without one, the class that PEFT notes.

    Args:
        base: its path or name.
        described, tensors: of the adapter, which has the size of the head if that is saved too.
        directory: of the adapter, for the message.

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
    auto = AUTO_OF_TASK.get(described.task_type)
    name = None if auto is None else class_by_auto(config.model_type, auto)
    name = (
        name or (described.auto_mapping or {}).get("base_model_class") or next(iter(config.architectures or ()), None)
    )
    architecture = architecture_of_config(config, name)
    plain = base_without_weights(architecture, directory)
    sizes = {name: plain.get_parameter(name).shape for name in head_parameters(plain)}
    saved = {name: tensors[key].shape for name in sizes if (key := f"{PEFT_PREFIX}{name}") in tensors}
    if saved:
        resized = [shape[0] for name, shape in saved.items() if shape != sizes[name]]
        architecture[NUM_LABELS] = resized[0] if resized else config.num_labels
    labels = [config.id2label[output] for output in sorted(config.id2label)]
    return architecture, labels if architecture.get(NUM_LABELS) == len(labels) else None
