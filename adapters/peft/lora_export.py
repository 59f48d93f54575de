"""Export saved deltas as a folder of LoRA that PEFT, vLLM and llama.cpp's converter read.

    T of each linear  ->  B A, exact at its matrix rank  ->  truncated SVD to ``rank``, if one is given  ->  folder

The format is that of ``adapters.algebra.lora``: one rank r for all linears and alpha = r. What else the readers need:

    vLLM         no tensors but <path>.lora_A.weight and <path>.lora_B.weight, so no biases and no modules_to_save; a
                 list in target_modules; r <= 512 (vllm/lora/utils.py, vllm/lora/peft_helper.py, vllm/config/lora.py)
    llama.cpp    the same tensors; base_model_name_or_path, or its option --base (convert_lora_to_gguf.py)
    PEFT         fan_in_fan_out if the base stores W transposed, as GPT-2 does
"""

import copy
import os
from pathlib import Path
from typing import Any

from peft import get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters.algebra import ApproximationReport, Deltas
from adapters.algebra.lora import write_lora
from adapters.algebra.peft_tensors import TARGET_KEYS, target_keys
from adapters.base.linear_layers import LINEAR_CLASSES, features
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.conversion import assign, name_in_model
from adapters.peft.folders import base_architecture, read_tuner, task_type
from adapters.peft.injection import DELTA
from adapters.peft.lora_card import write_lora_card
from adapters.peft.placement import peft_targets
from adapters.saved.architecture import base_without_weights
from adapters.saved.checkpoint import read_checkpoint
from adapters.saved.folder import CheckpointError, FolderKind, check_is_new, create_folder, folder_kind, read_config
from adapters.saved.state import check_tensors
from adapters.validation import refuse


def export_lora(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    rank: int | None = None,
    task: str | None = None,
    base: str | None = None,
) -> ApproximationReport:
    """Write the deltas of a saved adapter as LoRA.

    Args:
        source: a folder of ``adapters.save`` (tt_lora), of our tuner or of LoRA.
        destination: a new or empty folder.
        rank: the largest rank r, for the best approximation of each delta; None for the largest matrix rank, which is
            exact.
        task: whose deltas are written, of a folder of ``adapters.save`` with adapters by task.
        base: path or name of the base model, by default the one named in ``source``. It is needed for shared cores and
            site modes of our tuner, as only the model tells which linears share them.

    Returns:
        The ranks, parameters and error of each linear, before and after the truncation. Storing in float32 adds a
        relative error of about 1e-7.

    Raises:
        CheckpointError: the source cannot be read, holds something else than finite matrices added to linears, or a
            trained bias; the base is needed and cannot be found; or the destination is not new. Nothing is written.
        ConfigurationError: the rank is not a positive integer.
    """
    source, destination = Path(source), Path(destination)
    check_is_new(destination)
    if rank is not None and (not isinstance(rank, int) or rank < 1):
        refuse("rank", "must be a positive integer", repr(rank), "leave it out for an exact export", "export_lora")
    config = read_config(source)
    kind = folder_kind(config, source)
    skeleton = _skeleton(source, kind, base)
    try:
        deltas = _read(source, kind, task, skeleton).per_linear()
    except ValueError as error:
        raise CheckpointError(f"{str(error).removesuffix('.')} (in {source}).") from None
    _check_biases(deltas, source)
    if skeleton is not None:
        _check_base(skeleton, deltas, source)
    factors, report = Deltas(deltas.to_low_rank()).round(rank)  # without biases, which are zero
    described = _targets(config, source, factors, skeleton)
    if kind is FolderKind.NATIVE:
        described["task_type"] = task_type(skeleton, trains_head=False)
    if skeleton is not None:
        transposed = [isinstance(skeleton.get_submodule(path), Conv1D) for path in factors]
        described["fan_in_fan_out"] = any(transposed)
    if base is not None:
        described["base_model_name_or_path"] = base

    def write(folder: Path) -> None:
        write_lora(folder, source, factors, {}, described)
        write_lora_card(folder, report)

    create_folder(destination, write)
    return report


def _skeleton(source: Path, kind: FolderKind, base: str | None) -> nn.Module | None:
    """Return the base on the meta device; None for a folder of PEFT whose base is not found, and for LoRA."""
    if kind is FolderKind.NATIVE:
        return base_without_weights(read_checkpoint(source).architecture, source)
    if kind is FolderKind.LORA:
        return None
    described, tensors = read_tuner(source)
    try:
        architecture, _ = base_architecture(base or described.base_model_name_or_path, described, tensors, source)
        return base_without_weights(architecture, source)
    except CheckpointError:
        if base is None and not _is_shared(described):
            return None
        raise


def _is_shared(config: TensorTrainConfig) -> bool:
    return bool(config.to_adapter_config().shared_slots())


def _read(source: Path, kind: FolderKind, task: str | None, skeleton: nn.Module | None) -> Deltas:
    """Return the deltas in the folder; those of a tuner that shares cores are put into a copy of its base."""
    if kind is not FolderKind.TUNER or not _is_shared(read_tuner(source)[0]):
        return Deltas.read(source, task)
    described, tensors = read_tuner(source)
    described.base_model_name_or_path = None
    try:
        model = get_peft_model(copy.deepcopy(skeleton), described)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Deltas fit the linears of their base model; got {source}, which does not fit its base "
            f"({str(error).rstrip('.')}): pass the base that it was trained on as base."
        ) from None
    state = {name_in_model(name, {}): tensor for name, tensor in tensors.items()}
    check_tensors({name: p.shape for name, p in model.named_parameters() if DELTA in name}, state, str(source))
    assign(model, state)
    return Deltas.of(model)


def _check_biases(deltas: Deltas, source: Path) -> None:
    """Check that no delta has a bias other than zero."""
    trained = [path for path, bias in deltas.biases.items() if bias.any()]
    if trained:
        raise CheckpointError(
            f"vLLM and llama.cpp read LoRA without biases; got a delta with a trained bias at {trained[0]} in "
            f"{source}: train without it, merge it into its base, or use Deltas.read(...).write_lora for PEFT alone."
        )


def _check_base(skeleton: nn.Module, deltas: Deltas, source: Path) -> None:
    """Check that the base has a linear of the size of each delta."""
    modules, head = dict(skeleton.named_modules()), skeleton.get_output_embeddings()
    for path, train in deltas.items():
        module = modules.get(path)
        size = features(module)[::-1] if isinstance(module, LINEAR_CLASSES) else None
        if module is head and size is not None:
            size = (train.shape[0], size[1])  # an architecture has no vocabulary
        if train.shape != size:
            found = "no linear there" if size is None else f"a linear of {size}"
            raise CheckpointError(
                f"A delta has the size (out, in) of a linear of the base; got {train.shape} at {path} in {source}, and "
                f"{found} in the base: pass the base that it was trained on as base."
            )


def _targets(config: dict[str, Any], source: Path, deltas: Deltas, skeleton: nn.Module | None) -> dict[str, Any]:
    """Return the keys that select the linears, with a list in target_modules."""
    if skeleton is None:
        keys = target_keys(config, source, deltas)
    else:
        keys = {**dict.fromkeys(TARGET_KEYS), "target_modules": peft_targets(skeleton, set(deltas))}
    if isinstance(keys["target_modules"], str):
        keys = {**dict.fromkeys(TARGET_KEYS), "target_modules": sorted(deltas)}
    return keys
