"""The two files of a saved adapter: the only code that reads or writes them, or determines who wrote them.

    adapter_config.json          a JSON object; PEFT's has "peft_type", that of ``adapters.save`` has "adapters"
    adapter_model.safetensors    tensors by name, and a string of metadata

    kind      written by                  its tensors
    NATIVE    ``adapters.save``           encoder.block.0...wi.beside.tt_lora.tasks.all_tasks.linear.cores.0
    TUNER     our tuner in PEFT           base_model.model.encoder.block.0...wi.tt_lora_delta.linear.cores.0
    LORA      PEFT's LoRA                 base_model.model.encoder.block.0...wi.lora_A.weight

Files are safetensors and JSON only: nothing is unpickled. Each is written completely or not at all.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapters.saved.files import replace_file, set_default_mode

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
"""The file of an adapter's tensors in its folder."""
FORMAT_VERSION = 1
NATIVE_KEYS = ("adapters", "architecture", "format_version")
PEFT_PREFIX = "base_model.model."
"""The prefix that a PeftModel gives the paths of its base."""


class CheckpointError(RuntimeError):
    """A saved adapter cannot be read or does not fit; model and files are unchanged."""


class FolderKind(Enum):
    """Who wrote a folder; the values of TUNER and LORA are PEFT's ``peft_type``."""

    NATIVE = "adapters.save"
    TUNER = "TT_LORA"
    LORA = "LORA"

    def __str__(self) -> str:
        names = {FolderKind.NATIVE: "adapters.save", FolderKind.TUNER: "our PEFT tuner (TT_LORA)"}
        return names.get(self, "PEFT's LoRA")


HINTS = {
    FolderKind.NATIVE: "load it with adapters.load, or convert it with adapters.peft.to_peft",
    FolderKind.TUNER: "load it with PeftModel.from_pretrained, or convert it with adapters.peft.from_peft",
    FolderKind.LORA: "load it with PeftModel.from_pretrained",
}
"""How to use a folder of each kind where it is not supported."""


def read_config(directory: Path, *kinds: FolderKind) -> dict[str, Any]:
    """Read adapter_config.json of a folder of one of ``kinds``, by default of any.

    Raises:
        CheckpointError: the file is missing or does not hold a JSON object, a key is missing, or the format version or
            the kind of folder is not supported.
    """
    path = directory / CONFIG_NAME
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"A saved adapter must have a file {CONFIG_NAME}; got {_given(path, error)}: check the path."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{CONFIG_NAME} must hold JSON; got {_given(path, error)}: save the adapter again."
        ) from None
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{CONFIG_NAME} must hold a JSON object; got a {type(config).__name__} in {path}: save the adapter again."
        )
    kind = folder_kind(config, directory)
    if kinds and kind not in kinds:
        expected = " or ".join(map(str, kinds))
        raise CheckpointError(
            f"A folder of {expected} is expected here; got one of {kind} in {directory}: {HINTS[kind]}."
        )
    return with_delta_bias(config) if kind is FolderKind.TUNER else config


def with_delta_bias(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of our tuner with ``delta_bias``, which earlier versions called ``bias``, as PEFT's field.

    PEFT's has none of the values of ours but "none", which says the same.
    """
    if config.get("bias") in ("dense", "tt") and config.get("delta_bias", "none") == "none":
        return {**config, "delta_bias": config["bias"], "bias": "none"}
    return config


def folder_kind(config: Mapping[str, Any], directory: Path) -> FolderKind:
    """Return who wrote a folder with this configuration; see ``read_config`` for the errors."""
    method = config.get("peft_type")
    if "peft_type" not in config:
        missing = [key for key in NATIVE_KEYS if key not in config]
        if missing:
            raise CheckpointError(
                f"{CONFIG_NAME} must have the keys {', '.join(NATIVE_KEYS)}, or peft_type if PEFT wrote it; got a file "
                f"without {', '.join(missing)} in {directory}: save the adapter again."
            )
        if config["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"This version of the library reads only format_version {FORMAT_VERSION}; got "
                f"{config['format_version']!r} in {directory}: use the version that wrote it."
            )
        return FolderKind.NATIVE
    if method not in (FolderKind.TUNER.value, FolderKind.LORA.value):
        raise CheckpointError(
            f"Of PEFT's methods only {FolderKind.TUNER.value} and {FolderKind.LORA.value} are supported; got peft_type "
            f"{method!r} in {directory}: load it with PeftModel.from_pretrained, or merge it into its base model."
        )
    return FolderKind(method)


def read_tensors(directory: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read adapter_model.safetensors: the tensors by name, on the CPU, and the metadata.

    Raises:
        CheckpointError: the file is missing or is not a safetensors file.
    """
    path = directory / WEIGHTS_NAME
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except OSError as error:
        raise CheckpointError(
            f"A saved adapter must have a file {WEIGHTS_NAME}; got {_given(path, error)}: check the path."
        ) from None
    except SafetensorError as error:
        raise CheckpointError(
            f"{WEIGHTS_NAME} must be a safetensors file; got {_given(path, error)}: save the adapter again."
        ) from None


def parameter_count(directory: Path, mark: str = "") -> int:
    """Return the total size of the tensors in adapter_model.safetensors with ``mark`` in their names."""
    with safe_open(directory / WEIGHTS_NAME, framework="pt") as file:
        names = file.keys()
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names if mark in name)


def write_files(
    directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], metadata: dict[str, str]
) -> None:
    """Write both files, the tensors first, into ``directory``, which is created if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    replace_file(directory / WEIGHTS_NAME, lambda path: save_file(stored, path, metadata=metadata))
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    replace_file(directory / CONFIG_NAME, lambda path: path.write_text(text, encoding="utf-8"))


def check_is_new(destination: Path) -> None:
    """Raise CheckpointError unless ``destination`` is a path without a file, or an empty folder."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(
            f"The destination must be a new or empty folder; got {destination}, which is neither: choose another one."
        )


def create_folder(destination: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a folder next to ``destination``, then move it into place, so that it is complete or absent.

    Raises:
        CheckpointError: ``destination`` is neither new nor an empty folder.
    """
    destination = destination.resolve()
    check_is_new(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as beside:
        folder = Path(beside) / destination.name
        folder.mkdir()
        write(folder)
        set_default_mode(*(path for path in folder.rglob("*") if path.is_file()))
        os.replace(folder, destination)


def _given(path: Path, error: Exception) -> str:
    """Say what is wrong with a file, without the error's own full stop."""
    if isinstance(error, FileNotFoundError):
        return f"no {path}"
    return f"{path} ({str(error).rstrip('.')})"
