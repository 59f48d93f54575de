"""The architecture of a base model, as the folder of an adapter stores it, and that model without weights.

{"model_type": "bert", "hidden_size": 384, ..., "model_class": "BertForSequenceClassification", "num_labels": 2}

model_class    of transformers; without it, the class that its AutoModelForSeq2SeqLM gives
num_labels     only if the head of the task is saved too, whose size it is
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as SEQ2SEQ_CLASSES

from adapters.base.architectures import ARCHITECTURES
from adapters.base.heads import head_parameters
from adapters.saved.folder import CheckpointError

MODEL_CLASS = "model_class"
NUM_LABELS = "num_labels"


def architecture_of_config(config: Any, model_class: str | None = None) -> dict[str, Any]:
    """The values in a model's configuration that its adapters depend on; every known key for an unknown model type.

    Args:
        config: of a model of transformers.
        model_class: the name of its class in transformers.
    """
    model_type = getattr(config, "model_type", None)
    entries = [entry for entry in ARCHITECTURES if model_type in entry.model_types] or ARCHITECTURES
    keys = dict.fromkeys(key for entry in entries for key in entry.config_keys)
    values = {key: getattr(config, key) for key in keys if hasattr(config, key)}
    if model_class is not None and model_class != SEQ2SEQ_CLASSES.get(model_type):
        values[MODEL_CLASS] = model_class
    return values


def architecture_of_model(model: nn.Module) -> dict[str, Any]:
    """The architecture of ``model``, with the size of its head if that trains."""
    values = architecture_of_config(model.config, _class_in_transformers(model))
    if any(model.get_parameter(name).requires_grad for name in head_parameters(model)):
        values[NUM_LABELS] = model.config.num_labels
    return values


def check_architecture(model: nn.Module, saved: Any, directory: Path) -> None:
    """Check that an adapter was trained in the architecture of ``model``.

    Raises:
        CheckpointError: the one in the folder is another.
    """
    saved = saved if isinstance(saved, dict) else {}
    present = architecture_of_config(model.config, _class_in_transformers(model))
    if NUM_LABELS in saved:
        present[NUM_LABELS] = model.config.num_labels
    for key in dict.fromkeys([*saved, *present]):
        older = key == MODEL_CLASS and key not in saved
        if saved.get(key) != present.get(key) and not older:
            raise CheckpointError(
                f"An adapter fits only the architecture it was trained in; got {key}={saved.get(key)!r} in {directory} "
                f"and {present.get(key)!r} in the model: load the base model it was trained on."
            )


def base_without_weights(architecture: dict[str, Any], directory: Path) -> nn.Module:
    """A model of this architecture on the meta device.

    Args:
        architecture: from a folder of ``adapters.save``, or of a base model.
        directory: the folder, for the message.

    Raises:
        CheckpointError: transformers has no such model.
    """
    try:
        values = dict(architecture)
        name = values.pop(MODEL_CLASS, None)
        config = AutoConfig.for_model(**values)
        with torch.device("meta"):
            return AutoModelForSeq2SeqLM.from_config(config) if name is None else _class_of(name)(config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"A folder can be read without its model only for a model of transformers; got the base {architecture!r} "
            f"for {directory} ({str(error).rstrip('.')}): load the adapter into its model and use Deltas.of(model)."
        ) from error


def _class_of(name: Any) -> type[PreTrainedModel]:
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if not isinstance(found, type) or not issubclass(found, PreTrainedModel):
        raise ValueError(f"transformers has no model class {name!r}")
    return found


def _class_in_transformers(model: nn.Module) -> str | None:
    """The name of the model's class, or of the first one it is derived from that transformers has."""
    names = [cls.__name__ for cls in type(model).__mro__ if getattr(transformers, cls.__name__, None) is not None]
    return next((name for name in names if name != "PreTrainedModel"), None)
