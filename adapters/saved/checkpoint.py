"""save and load: the adapters of a model in a folder, without the base weights.

    adapter_config.json          format_version, architecture (of the base model), adapters (task and config of each),
                                 base_weights (a sample of the frozen ones, see ``adapters.saved.base_weights``),
                                 labels (of the outputs of a head, see ``adapters.saved.labels``)
    adapter_model.safetensors    tensors of the adapters, and trainable ones of the base such as layer norms, by their
                                 names in the model; metadata: format version and hash of adapter_config.json
    README.md                    a model card, which is never read (``adapters.saved.model_card``)

The two files are replaced one after the other, so a killed process may leave new tensors next to an old configuration;
the hash detects this. Loading compares hash, names, shapes and architecture before it changes the model.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adapters.compiled import uncompiled
from adapters.configuration import AdapterConfig
from adapters.injection import attach, attachments
from adapters.saved.architecture import architecture_of_model, check_architecture
from adapters.saved.base_weights import KEY, base_sample, warn_of_other_base
from adapters.saved.folder import (
    CONFIG_NAME,
    FORMAT_VERSION,
    WEIGHTS_NAME,
    CheckpointError,
    FolderKind,
    read_config,
    read_tensors,
    write_files,
)
from adapters.saved.labels import KEY as LABELS
from adapters.saved.labels import check_labels, labels_of, set_labels
from adapters.saved.model_card import write_model_card
from adapters.saved.skeleton import model_with_adapters
from adapters.saved.state import adapter_state_dict, check_tensors, load_tensors
from adapters.sharded import writes
from adapters.validation import ConfigurationError

METADATA_KEY = "adapter"
"""The only key of the metadata: safetensors writes several in any order, and equal adapters must give equal bytes."""


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a folder that ``save`` wrote.

    Args:
        architecture: the keys of the base model's configuration that an adapter depends on.
        adapters: task and configuration of each, in the order in which they were attached.
        tensors: by their names in the model.
        base_weights: a sample of the base model's frozen weights; None in folders of earlier versions, and of
            adapters that were made without their base.
        labels: those of the outputs of the base model's head; None if it has none.
    """

    architecture: Any
    adapters: list[tuple[str | None, AdapterConfig]]
    tensors: dict[str, Tensor]
    base_weights: Any = None
    labels: Any = None


def save(model: nn.Module, directory: str | os.PathLike, model_card: bool = True, base_weights: Any = None) -> None:
    """Write the adapters of ``model`` into ``directory`` (created if missing), each file completely or not at all.

    Processes that share a sharded model call this together; the first of them writes, the adapters are whole.

    Args:
        model: a model with adapters; a merged or compiled one is saved as the original.
        directory: the folder.
        model_card: whether to write a README.md; checkpoints of a run in progress have none.
        base_weights: the sample of the base of a model on the meta device, which has none to take it from.
    """
    model, directory = uncompiled(model), Path(directory)
    config = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture_of_model(model),
        "adapters": [attachment.to_dict() for attachment in attachments(model)],
    }
    if (sample := base_sample(model) or base_weights) is not None:
        config[KEY] = sample
    if (labels := labels_of(model)) is not None:
        config[LABELS] = labels
    tensors = adapter_state_dict(model)
    if not writes(model):
        return
    write_files(directory, config, tensors, {METADATA_KEY: fingerprint(config)})
    if model_card:
        write_model_card(model, directory, sum(tensor.numel() for tensor in tensors.values()))


def load(model: nn.Module, directory: str | os.PathLike) -> nn.Module:
    """Load adapters that ``save`` wrote into ``model``, which may be compiled, and attach them first if it has none.

    A warning is logged if the base has other weights than that of the saved adapters.

    Returns:
        The same model.

    Raises:
        CheckpointError: files are missing or unreadable or were not saved together, the base model's architecture
            differs, other adapters are attached, or names or shapes of tensors differ. The model is unchanged.
    """
    given, model, directory = model, uncompiled(model), Path(directory)
    checkpoint = read_checkpoint(directory)
    check_architecture(model, checkpoint.architecture, directory)
    check_labels(model, checkpoint.labels, directory)
    present = [(attachment.task, attachment.config) for attachment in attachments(model)]
    if present and present != checkpoint.adapters:
        kinds = [[config.kind for _, config in adapters] for adapters in (checkpoint.adapters, present)]
        raise CheckpointError(
            f"A checkpoint loads into a model with the same adapters or with none; got {kinds[0]} in {directory} and "
            f"{kinds[1]} in the model, where kinds, tasks or fields differ: load into a model without adapters."
        )
    expected = model if present else model_with_adapters(model, checkpoint.adapters, directory)
    shapes = {name: tensor.shape for name, tensor in adapter_state_dict(expected).items()}
    check_tensors(shapes, checkpoint.tensors, str(directory))
    if not present:
        for task, config in checkpoint.adapters:
            attach(model, config, task)
    load_tensors(model, checkpoint.tensors)
    set_labels(model, checkpoint.labels)
    warn_of_other_base(model, checkpoint.base_weights, directory)
    return given


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read a folder that ``save`` wrote.

    Raises:
        CheckpointError: files are missing or unreadable, or were not saved together.
    """
    config = read_config(directory, FolderKind.NATIVE)
    adapters = _saved_adapters(config["adapters"], directory)
    tensors, metadata = read_tensors(directory)
    if metadata.get(METADATA_KEY) != fingerprint(config):
        raise CheckpointError(
            f"The two files of an adapter must be saved together; got {WEIGHTS_NAME} in {directory} that belongs to "
            f"another {CONFIG_NAME}: save the adapter again, or load an earlier checkpoint."
        )
    return Checkpoint(config["architecture"], adapters, tensors, config.get(KEY), config.get(LABELS))


def fingerprint(config: dict[str, Any]) -> str:
    """Return JSON of the format version and the SHA-256 of the canonical JSON: keys sorted, no spaces."""
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    values = {
        "configuration_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "format_version": config["format_version"],
    }
    return json.dumps(values, sort_keys=True)


def _saved_adapters(entries: Any, directory: Path) -> list[tuple[str | None, AdapterConfig]]:
    """Return task and configuration of each entry."""
    try:
        return [(entry["task"], AdapterConfig.from_dict(entry["config"])) for entry in entries]
    except (TypeError, KeyError) as error:
        reason = repr(error)
    except ConfigurationError as error:
        reason = str(error).rstrip(".")
    raise CheckpointError(
        f"{CONFIG_NAME} lists valid adapters, each with a task and a config; got another list in {directory} "
        f"({reason}): save the adapter again."
    )
