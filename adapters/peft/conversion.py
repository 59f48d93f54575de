"""Convert folders of ``adapters.save`` to folders of PEFT and back: the same tensors under other names.

    native    encoder.block.0...wi.beside.tt_lora.tasks.all_tasks.linear.cores.0           shared_parameters.<key>
    PEFT      base_model.model.encoder.block.0...wi.tt_lora_delta.linear.cores.0           shared_by_deltas...<key>

Both are attached to one base on the meta device, without memory. The two names of a tensor are those of the Parameters
at the same place in the same delta, so that every format is supported and shared cores stay shared. A head that trains,
the kind head here, is in ``modules_to_save`` there; its tensors have the names of the base, and PEFT's prefix there.
"""

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from adapters.base.adapted_linear import AdaptedMap
from adapters.base.controller import ALL_TASKS
from adapters.base.sublayers import find_sublayers
from adapters.base.targets import targets_of
from adapters.injection import attach
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.kinds.whole_model import HeadConfig
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.folders import base_architecture, read_tuner, task_type
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.model import TensorTrainModel
from adapters.peft.placement import check_whole_head, head_modules, peft_targets, whole_modules
from adapters.saved.architecture import base_without_weights
from adapters.saved.checkpoint import read_checkpoint, save
from adapters.saved.folder import PEFT_PREFIX, CheckpointError, create_folder
from adapters.saved.labels import set_labels
from adapters.saved.state import adapter_state_dict, check_tensors
from adapters.validation import ConfigurationError
from t3nsor.module import TTModule

NAME = "default"
ELSEWHERE = ("kind", "target_modules", "exclude_modules", "sublayers", "stacks", "layers", "share_across")
"""Keys of tt_lora that are written anew: where deltas are, and across what they share cores."""
COMMON = {field.name for field in fields(TensorTrainLoRAConfig)} & {field.name for field in fields(TensorTrainConfig)}


def to_peft(directory: str | os.PathLike, destination: str | os.PathLike, base: str | None = None) -> None:
    """Convert a folder of ``adapters.save`` to one that PEFT loads.

    Args:
        directory: one adapter of the kind tt_lora, for all tasks, and the kind head if the head has been trained.
        destination: a new or empty folder.
        base: path or name of the base model, needed by classes of PEFT that load the base too.

    Raises:
        CheckpointError: PEFT does not support the adapter, or a folder is not valid. Nothing is written.
    """
    directory = Path(directory)
    checkpoint = read_checkpoint(directory)
    config, has_head = _tt_lora_and_head(checkpoint.adapters, directory)
    native, plain, adapted = (base_without_weights(checkpoint.architecture, directory) for _ in range(3))
    try:
        attach(native, [config for _, config in checkpoint.adapters])
    except (TypeError, ValueError) as error:
        raise _does_not_fit(directory, "its own architecture", "save it again", error) from None
    shapes = {name: tensor.shape for name, tensor in adapter_state_dict(native).items()}
    check_tensors(shapes, checkpoint.tensors, str(directory))
    values = {name: value for name, value in config.to_dict().items() if name not in ELSEWHERE}
    try:
        described = TensorTrainConfig(
            **values,
            share_across=_share_across(config, directory),
            target_modules=peft_targets(plain, {path for path, _ in _native_deltas(native)}),
            modules_to_save=head_modules(plain, directory) if has_head else None,
            task_type=task_type(plain, has_head),
        )
        model = get_peft_model(adapted, described)
    except ConfigurationError as error:
        raise CheckpointError(
            f"A converted adapter must be a valid TensorTrainConfig; got {directory}, which is not "
            f"({str(error).rstrip('.')}): train another adapter for PEFT."
        ) from None
    whole = whole_modules(model, NAME)
    if has_head:
        check_whole_head(plain, whole, directory)
    assign(model, {name_in_model(theirs, whole): checkpoint.tensors[ours] for ours, theirs in _names(native, model)})
    used = model.peft_config[NAME]
    used.base_model_name_or_path = base
    used.modules_to_save = sorted(set(used.modules_to_save or ())) or None  # PEFT adds the names of heads
    model.get_base_model().config._name_or_path = base or ""  # read by PEFT's model card
    create_folder(Path(destination), lambda folder: model.save_pretrained(folder, save_embedding_layers=False))


def from_peft(directory: str | os.PathLike, destination: str | os.PathLike, base: str | None = None) -> None:
    """Convert a folder of our PEFT tuner to one that ``adapters.load`` reads.

    Args:
        directory: one adapter, saved by ``save_pretrained``.
        destination: a new or empty folder.
        base: path or name of the base model, by default the one named in the folder.

    Raises:
        CheckpointError: ``adapters.load`` does not support the adapter, the base cannot be found or is not a model of
            transformers, or a folder is not valid. Nothing is written.
    """
    directory = Path(directory)
    described, tensors = read_tuner(directory)
    if described.target_parameters:
        raise CheckpointError(
            "Folders of adapters.save have deltas of linears; got target_parameters="
            f"{described.target_parameters} in {directory}: load it with PeftModel.from_pretrained."
        )
    base = base or described.base_model_name_or_path
    architecture, labels = base_architecture(base, described, tensors, directory)
    described.base_model_name_or_path = None
    plain, adapted, native = (base_without_weights(architecture, directory) for _ in range(3))
    try:
        model = get_peft_model(adapted, described)
    except (TypeError, ValueError) as error:
        raise _does_not_fit(directory, repr(base), "use the base model it was trained on", error) from None
    whole = whole_modules(model, NAME)
    if whole:
        check_whole_head(plain, whole, directory)
    values = {name: getattr(described, name) for name in COMMON - {"target_modules", "exclude_modules"}}
    paths = {path for path, _ in _peft_deltas(model)}
    try:
        targets = targets_of(TensorTrainLoRAConfig(), find_sublayers(plain), paths)
        config = TensorTrainLoRAConfig.from_dict({"kind": "tt_lora", **values, "target_modules": targets})
        attach(native, [config, HeadConfig()] if whole else config)
    except (TypeError, ValueError) as error:
        raise _does_not_fit(directory, "the kind tt_lora", "load it with PeftModel.from_pretrained", error) from None
    names = dict(_names(native, model))
    parameters = dict(model.named_parameters())
    expected = {name: parameters[name_in_model(name, whole)].shape for name in names.values()}
    check_tensors(expected, tensors, str(directory))
    assign(native, {ours: tensors[theirs] for ours, theirs in names.items()})
    set_labels(native, labels)
    create_folder(Path(destination), lambda folder: save(native, folder))


def _does_not_fit(directory: Path, base: str, fix: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"Deltas fit the linears of their base model; got {directory}, which does not fit {base} "
        f"({str(error).rstrip('.')}): {fix}."
    )


def _tt_lora_and_head(adapters: list[tuple[str | None, Any]], directory: Path) -> tuple[TensorTrainLoRAConfig, bool]:
    """Return the configuration of the only adapter, a tt_lora for all tasks, and whether the head trains too."""
    deltas = [config for task, config in adapters if task is None and isinstance(config, TensorTrainLoRAConfig)]
    heads = [config for _, config in adapters if isinstance(config, HeadConfig)]
    if len(deltas) != 1 or len(adapters) != 1 + len(heads):
        raise CheckpointError(
            "A folder of PEFT holds one adapter of the kind tt_lora, for all tasks, and possibly the head; got "
            f"{[(config.kind, task) for task, config in adapters]} in {directory}: save that one alone, or "
            "make a plain model by adapters.merge_and_unload and save that."
        )
    return deltas[0], bool(heads)


def _share_across(config: TensorTrainLoRAConfig, directory: Path) -> list[str]:
    """Return PEFT's ``share_across``, which has no tasks."""
    across = [scope for scope in config.share_across if scope != "tasks"]
    if not across:
        raise CheckpointError(
            f"Adapters in PEFT have no tasks to share across; got share_across={list(config.share_across)} in "
            f"{directory}: train it with another share_across."
        )
    return across


def _native_deltas(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, host in model.named_modules():
        if isinstance(host, AdaptedMap):
            for controller in host.beside.values():
                yield path, controller.tasks[ALL_TASKS]


def _peft_deltas(model: PeftModel) -> Iterator[tuple[str, nn.Module]]:
    for path, layer in model.base_model.model.named_modules():
        if isinstance(layer, TensorTrainPeftLinear):
            yield path, layer.tt_lora_delta[NAME]


def _names(native: nn.Module, model: PeftModel) -> Iterator[tuple[str, str]]:
    """Yield the names of each tensor in a folder of ``adapters.save`` and in one of PEFT."""
    ours = {id(parameter): name for name, parameter in native.named_parameters()}
    theirs = {id(parameter): name for name, parameter in model.named_parameters()}
    counterparts, pairs = dict(_peft_deltas(model)), {}
    for path, delta in _native_deltas(native):
        for native_one, peft_one in zip(_parameters(delta), _parameters(counterparts[path]), strict=True):
            native_name = ours[id(native_one)]
            peft_name = TensorTrainModel._remove_adapter_name_from_key(theirs[id(peft_one)], NAME)
            if pairs.setdefault(native_name, peft_name) != peft_name:
                raise CheckpointError(
                    f"Both folders share the same tensors; got {native_name}, which would be two tensors in the other "
                    "one: share cores across other linears."
                )
    yield from pairs.items()
    for path in whole_modules(model, NAME):
        yield path, f"{PEFT_PREFIX}{path}"


def _parameters(delta: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the Parameters of a delta, its own and shared ones, in a fixed order."""
    for module in delta.modules():
        if isinstance(module, TTModule):
            for k in range(len(module.core_shapes)):
                yield from module.cores.parameters_of(k)
    yield from delta.parameters()


def name_in_model(name: str, whole: dict[str, str]) -> str:
    """Return the name in a PeftModel of a tensor in PEFT's file; ``whole`` has those of modules that train whole."""
    default = name.replace(".tt_lora_delta.", f".tt_lora_delta.{NAME}.", 1)
    return whole.get(name.removeprefix(PEFT_PREFIX), default)


def assign(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put tensors in the place of those on the meta device."""
    model.load_state_dict(tensors, strict=False, assign=True)
