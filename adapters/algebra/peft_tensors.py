"""What folders of LoRA and of our tuner have in common: names of tensors, and the keys that select linears."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adapters.compiled import original_path
from adapters.saved.folder import PEFT_PREFIX, CheckpointError, FolderKind, folder_kind, read_tensors, write_files
from adapters.saved.model_card import remove_model_card

MARKS = {FolderKind.TUNER: ".tt_lora_delta.", FolderKind.LORA: ".lora_"}
"""Part of the names of tensors between the path of a linear and the name in its delta."""
TARGET_KEYS = ("exclude_modules", "layers_pattern", "layers_to_transform", "target_modules")


def read_by_path(directory: Path, kind: FolderKind) -> dict[str, dict[str, Tensor]]:
    """Read the tensors of a folder as {path of the linear: {name in its delta: tensor}}.

    Raises:
        CheckpointError: the file cannot be read or is empty, or a tensor does not belong to a delta.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(directory)[0].items():
        path, is_delta, rest = original_path(name).removeprefix(PEFT_PREFIX).partition(MARKS[kind])
        if not is_delta:
            fix = "save the adapter without the other modules that were trained"
            if ".base_layer." in name:  # PEFT saves them beside deltas of an output projection
                fix = "save it by save_pretrained(folder, save_embedding_layers=False)"
            raise CheckpointError(f"Algebra supports deltas of linears only; got {name!r} in {directory}: {fix}.")
        found.setdefault(path, {})[rest] = tensor
    if not found:
        raise CheckpointError(f"A saved adapter has at least one delta; got none in {directory}: save it again.")
    return found


def target_keys(config: Mapping[str, Any], like: Path | None, paths: Collection[str]) -> dict[str, Any]:
    """Return the keys by which PEFT selects linears: those of ``like`` if it has the same ones, else all their paths.

    Args:
        config: the configuration of ``like``; empty if there is none.
        like: a folder that names the base.
        paths: the linears to select.
    """
    kind = None if like is None else folder_kind(config, like)
    if kind in MARKS:
        names = (name.removeprefix(PEFT_PREFIX) for name in read_tensors(like)[0])
        if {name.partition(MARKS[kind])[0] for name in names} == set(paths):
            return {key: config[key] for key in TARGET_KEYS if key in config}
    return {**dict.fromkeys(TARGET_KEYS), "target_modules": sorted(paths)}


def write_peft(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write both files of a folder, tensors in float32, and remove a model card that no longer applies."""
    remove_model_card(directory)
    stored = {name: tensor.float() for name, tensor in sorted(tensors.items())}
    write_files(directory, config, stored, {"format": "pt"})
