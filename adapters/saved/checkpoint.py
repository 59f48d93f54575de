"""save and load: a folder with adapter_config.json and adapter_model.safetensors, adapter tensors only.

    adapter_config.json          format version, the base model's architecture, what is attached (kind and fields, task)
    adapter_model.safetensors    the adapters' tensors, and the model's own that train (layer norms),
                                 under the names that they have in the model; its metadata holds the format version and
                                 the hash of the configuration it was saved with
    README.md                    a model card, which nothing reads back (``adapters.saved.model_card``)

The files are replaced one after the other, so a kill may leave new tensors beside an old configuration, which the hash
shows. Loading compares hash, names, shapes and architecture before anything is touched, and reads no pickle.
"""

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from adapters.base.architectures import architecture_values
from adapters.base.controller import AdapterController
from adapters.configuration import AdapterConfig
from adapters.freezing import adapter_parameters
from adapters.injection import attach, attachments
from adapters.merging import is_merged, merge, unmerge
from adapters.saved.files import replace_file
from adapters.saved.model_card import write_model_card
from adapters.validation import ConfigurationError, nearest_name

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
FORMAT_VERSION = 1
METADATA_KEY = "adapter"
"""The one key of the metadata: safetensors writes several in any order, and equal adapters are equal bytes."""


class CheckpointError(RuntimeError):
    """A saved adapter does not fit or cannot be read; the model is as it was."""


def adapter_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that a checkpoint holds, detached: all adapters' and the trainable ones of the base."""
    own = adapter_parameters(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own[name] = parameter
    state = model.state_dict()
    return {name: state[name].detach() for name in sorted({*own, *(adapter_buffers(model).keys() & state.keys())})}


def adapter_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers of adapters by name, each once; PEFT keeps fixed projections there."""
    below = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, AdapterController))
    return {name: buffer for name, buffer in model.named_buffers() if name.startswith(below)}


def architecture(model: nn.Module) -> dict[str, Any]:
    """What of the base model's configuration an adapter depends on."""
    return architecture_values(model.config)


def save(model: nn.Module, directory: str | os.PathLike, model_card: bool = True) -> None:
    """Write the adapters of ``model`` into ``directory`` (made if missing), each file whole or not at all.

    ``model_card=False`` leaves out the README.md, as in checkpoints of a training that goes on.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    description = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture(model),
        "adapters": [attachment.to_dict() for attachment in attachments(model)],
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in adapter_state_dict(model).items()}
    metadata = {METADATA_KEY: fingerprint(description)}
    replace_file(directory / WEIGHTS_NAME, lambda path: save_file(tensors, path, metadata=metadata))
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    replace_file(directory / CONFIG_NAME, lambda path: path.write_text(text))
    if model_card:
        write_model_card(model, directory, sum(tensor.numel() for tensor in tensors.values()))


def fingerprint(description: dict[str, Any]) -> str:
    """JSON of the format version and the SHA-256 of the configuration's canonical JSON: keys sorted, no spaces."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    values = {
        "configuration_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "format_version": description["format_version"],
    }
    return json.dumps(values, sort_keys=True)


def load(model: nn.Module, directory: str | os.PathLike) -> nn.Module:
    """Read adapters that ``save`` wrote into ``model``, attaching them first where the model has none.

    Raises:
        CheckpointError: files are missing or unreadable, the base model's architecture differs, other adapters are
            attached, the two files were not saved together, or names or shapes of tensors differ. The model is as it
            was.
    """
    directory = Path(directory)
    saved_architecture, saved, tensors = read_folder(directory)
    check_architecture(model, saved_architecture, directory)
    present = [(attachment.task, attachment.config) for attachment in attachments(model)]
    if present and present != saved:
        raise CheckpointError(
            f"A model takes the tensors of the adapters that it has; {directory} holds "
            f"{[config.kind for _, config in saved]} and the model {[config.kind for _, config in present]}, or their "
            "fields differ: load into a model without adapters."
        )
    expected = model if present else _skeleton(model, saved, directory)
    check_tensors(
        {name: tensor.shape for name, tensor in adapter_state_dict(expected).items()}, tensors, str(directory)
    )
    if not present:
        for task, config in saved:
            attach(model, config, task)
    load_tensors(model, tensors)
    return model


def read_folder(
    directory: Path,
) -> tuple[dict[str, Any], list[tuple[str | None, AdapterConfig]], dict[str, Tensor]]:
    """What a folder holds: the base's architecture, the pairs of task and configuration, the tensors by name.

    Raises:
        CheckpointError: files are missing or unreadable, or were not saved together.
    """
    description = _read_description(directory)
    saved = _saved_adapters(description["adapters"], directory)
    return description["architecture"], saved, _read_tensors(directory, fingerprint(description))


def check_tensors(expected: dict[str, torch.Size], tensors: dict[str, Tensor], where: str) -> None:
    """Refuse tensors whose names or shapes are not exactly the expected ones."""
    for name in expected:
        if name not in tensors:
            raise CheckpointError(f"A checkpoint holds every adapter tensor; {where} lacks {name!r}: save it again.")
    for name, tensor in tensors.items():
        if name not in expected:
            raise CheckpointError(
                f"A checkpoint holds adapter tensors of this model only; {where} has {name!r}: "
                f"{nearest_name(name, expected)}"
            )
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"Tensor {name!r} has shape {tuple(expected[name])} in this model; {where} has {tuple(tensor.shape)}: "
                "use the configuration it was saved with."
            )


@torch.no_grad()
def load_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy checked tensors into the parameters and buffers of the same names; a merged model is merged anew."""
    was_merged = is_merged(model)
    unmerge(model)
    targets = {**dict(model.named_parameters()), **adapter_buffers(model)}
    for name, tensor in tensors.items():
        targets[name].copy_(tensor)
    if was_merged:
        merge(model)


def _skeleton(model: nn.Module, saved: list[tuple[str | None, AdapterConfig]], directory: Path) -> nn.Module:
    """A model with the saved adapters attached, for their names and shapes.

    It is the architecture on the meta device, without memory, or shares the model's own weights where adapters of the
    saved kinds are made from them.
    """
    if any(config.reads_weights for _, config in saved):
        own = {id(p): nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()}
        skeleton = copy.deepcopy(model, own)
    else:
        with torch.device("meta"):
            skeleton = type(model)(model.config)
    try:
        for task, config in saved:
            attach(skeleton, config, task)
    except ConfigurationError as error:
        raise CheckpointError(f"An adapter fits the model it is loaded into; {directory} does not: {error}") from None
    return skeleton


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(
            f"An adapter is saved as {CONFIG_NAME} and {WEIGHTS_NAME}; {path} is not there: check the path."
        )
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} holds JSON; it cannot be read ({error}): save the adapter again.") from None
    required = {"format_version", "architecture", "adapters"}
    if not isinstance(description, dict) or not required <= description.keys():
        raise CheckpointError(f"{path} has the keys {sorted(required)}; some are missing: save the adapter again.")
    if description["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"This version reads format {FORMAT_VERSION}; {path} has {description['format_version']!r}: "
            "use the version of the library that wrote it."
        )
    return description


def _saved_adapters(entries: Any, directory: Path) -> list[tuple[str | None, AdapterConfig]]:
    """The pairs of task and configuration that were attached when the adapter was saved."""
    try:
        return [(entry["task"], AdapterConfig.from_dict(entry["config"])) for entry in entries]
    except (TypeError, KeyError) as error:
        reason = f"one is not ({error!r})"
    except ConfigurationError as error:
        reason = str(error)
    raise CheckpointError(
        f"{directory / CONFIG_NAME} lists valid adapters, each with a task and a config; {reason}: "
        "save the adapter again."
    )


def check_architecture(model: nn.Module, saved: Any, directory: Path) -> None:
    """Refuse a model of another architecture than the one that a folder says."""
    here = architecture(model)
    saved = saved if isinstance(saved, dict) else {}
    differing = [key for key in here if saved.get(key) != here.get(key)]
    if differing:
        key = differing[0]
        raise CheckpointError(
            f"An adapter fits the architecture it was trained in; {directory} has {key}={saved.get(key)!r} "
            f"and the model {here.get(key)!r}: load the base model it was trained on."
        )


def _read_tensors(directory: Path, expected: str) -> dict[str, Tensor]:
    path = directory / WEIGHTS_NAME
    if not path.is_file():
        raise CheckpointError(f"An adapter's tensors are in {WEIGHTS_NAME}; {path} is not there: check the path.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            if (file.metadata() or {}).get(METADATA_KEY) != expected:
                raise CheckpointError(
                    f"An adapter's two files are saved together; {WEIGHTS_NAME} in {directory} was not saved with the "
                    f"{CONFIG_NAME} beside it: save the adapter again, or load an earlier checkpoint."
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is a safetensors file; it cannot be read ({error}): save the adapter again."
        ) from None
