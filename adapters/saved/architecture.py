"""The architecture of a base model, as the folder of an adapter stores it, and that model without weights.

{"model_type": "bert", "hidden_size": 384, ..., "model_class": "BertForSequenceClassification", "num_labels": 2}

model_class    of transformers; without it, the class that its AutoModelForSeq2SeqLM gives
num_labels     only if the head of the task is saved too, whose size it is

Of a known architecture these are the keys of its entry in ``adapters.base.architectures``; of any other model type all
whole numbers, switches and names in its configuration, as any of them may be a size, and those of its parts, such as
the towers of CLIP. A model that is not of transformers has no architecture here, {}: the shapes of tensors decide.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from adapters.base.architectures import ARCHITECTURES
from adapters.base.heads import head_parameters
from adapters.saved.folder import CheckpointError

MODEL_CLASS = "model_class"
NUM_LABELS = "num_labels"
SEQ2SEQ = "AutoModelForSeq2SeqLM"
AUTO_CLASSES: dict[str, dict[str, Any]] = {
    SEQ2SEQ: modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "AutoModelForMaskedLM": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "AutoModelForSequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "AutoModelForTokenClassification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "AutoModelForQuestionAnswering": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    "AutoModelForImageClassification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "AutoModel": modeling_auto.MODEL_MAPPING_NAMES,
}
"""For each Auto class of transformers the class that it gives, by model type."""
NOT_STRUCTURE = ("architectures", "dtype", "problem_type", "tie_word_embeddings", "transformers_version", "use_cache")
NOT_STRUCTURE_ENDS = ("_token_id", "_token_index", "vocab_size")
"""Keys of a configuration that no linear's size depends on, by name and by the end of the name."""


def architecture_of_config(config: Any, model_class: str | None = None) -> dict[str, Any]:
    """The values in a model's configuration that its adapters depend on.

    Args:
        config: of a model of transformers; {} for any other object.
        model_class: the name of its class in transformers.
    """
    if not isinstance(config, PreTrainedConfig):
        return {}
    entry = next((entry for entry in ARCHITECTURES if config.model_type in entry.model_types), None)
    if entry is None:
        values = _structure(config.to_diff_dict())
    else:
        values = {key: getattr(config, key) for key in entry.config_keys if hasattr(config, key)}
    if model_class is not None and model_class != AUTO_CLASSES[SEQ2SEQ].get(config.model_type):
        values[MODEL_CLASS] = model_class
    return values


def _structure(values: dict[str, Any]) -> dict[str, Any]:
    """The whole numbers, switches, names and lists of these in a configuration, and in those of its parts."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if key in NOT_STRUCTURE or key.endswith(NOT_STRUCTURE_ENDS) or key.startswith("_"):
            continue
        if isinstance(value, dict) and "model_type" in value:
            kept[key] = _structure(value)
        elif isinstance(value, int | str):
            kept[key] = value
        elif isinstance(value, list | tuple) and all(isinstance(item, int | str) for item in value):
            kept[key] = list(value)
    return kept


def architecture_of_model(model: nn.Module) -> dict[str, Any]:
    """The architecture of ``model``, with the size of its head if that trains."""
    values = architecture_of_config(getattr(model, "config", None), _class_in_transformers(model))
    if values and any(model.get_parameter(name).requires_grad for name in head_parameters(model)):
        values[NUM_LABELS] = model.config.num_labels
    return values


def check_architecture(model: nn.Module, saved: Any, directory: Path) -> None:
    """Check that an adapter was trained in the architecture of ``model``.

    Raises:
        CheckpointError: the one in the folder is another.
    """
    saved = saved if isinstance(saved, dict) else {}
    present = architecture_of_config(getattr(model, "config", None), _class_in_transformers(model))
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
        values.pop(MODEL_CLASS, None)
        if "model_type" not in values:
            raise ValueError("it is not one of transformers")
        config, of_class = AutoConfig.for_model(**values), model_class(architecture)
        if not isinstance(config, of_class.config_class):
            raise ValueError(f"{of_class.__name__} is no class of the model type {config.model_type!r}")
        with torch.device("meta"):
            return of_class(config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"A folder can be read without its model only for a model of transformers; got the base {architecture!r} "
            f"for {directory} ({str(error).rstrip('.')}): load the adapter into its model and use Deltas.of(model)."
        ) from error


def model_class(architecture: dict[str, Any]) -> type[PreTrainedModel]:
    """The class of a base model.

    Raises:
        ValueError: transformers has no such class.
    """
    name = architecture.get(MODEL_CLASS, AUTO_CLASSES[SEQ2SEQ].get(architecture.get("model_type")))
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if not isinstance(found, type) or not issubclass(found, PreTrainedModel):
        raise ValueError(f"transformers has no model class {name!r}")
    return found


def auto_class(model_type: str | None, name: str) -> str | None:
    """The first Auto class of transformers that gives the class of this name for a model type; None if none does."""
    return next((auto for auto, names in AUTO_CLASSES.items() if name in _as_tuple(names.get(model_type))), None)


def class_by_auto(model_type: str | None, auto: str) -> str | None:
    """The name of the class that an Auto class gives for a model type; None if it gives none."""
    return next(iter(_as_tuple(AUTO_CLASSES[auto].get(model_type))), None)


def _as_tuple(names: Any) -> tuple[str, ...]:
    """Some model types have several classes."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def _class_in_transformers(model: nn.Module) -> str | None:
    """The name of the model's class, or of the first one it is derived from that transformers has."""
    names = [cls.__name__ for cls in type(model).__mro__ if getattr(transformers, cls.__name__, None) is not None]
    return next((name for name in names if name != "PreTrainedModel"), None)
