"""Folders of ``adapters.save`` as folders of PEFT and back: the same tensors under other names.

    native    encoder.block.0...wi.beside.tt_lora.tasks.all_tasks.linear.cores.0           shared_parameters.<key>
    PEFT      base_model.model.encoder.block.0...wi.tt_lora_delta.linear.cores.0           shared_by_deltas...<key>

Both are attached to one T5 on the meta device, without memory, and a tensor's two names are those of the Parameters in
the same place of the same delta; so every format is served, and what is shared stays so.
"""

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from peft import PeftModel, TaskType, get_peft_model
from torch import Tensor, nn

from adapters.base.controller import ALL_TASKS
from adapters.base.sublayers import find_sublayers
from adapters.injection import attach
from adapters.kinds.tensor_train import TensorTrainLoRAConfig
from adapters.peft.configuration import TensorTrainConfig
from adapters.peft.folders import architecture_of, read_config, read_tensors, write_folder
from adapters.peft.linear import TensorTrainPeftLinear
from adapters.peft.model import TensorTrainModel
from adapters.saved.checkpoint import CheckpointError, adapter_state_dict, check_tensors, read_folder, save
from adapters.saved.skeleton import base_without_weights
from adapters.validation import ConfigurationError
from t3nsor.module import TTModule

NAME = "default"
OWN_FIELDS = ("target_modules", "sublayers", "stacks", "layers", "share_across")
"""Fields that say where deltas are, or across what they share, which is said in each side's own way."""


def to_peft(directory: str | os.PathLike, destination: str | os.PathLike, base: str | None = None) -> None:
    """Write what ``adapters.save`` wrote as a folder that PEFT loads.

    Args:
        directory: one adapter of the kind tt_lora, for all tasks.
        destination: a folder that is new, or empty.
        base: path or name of the base model, for classes of PEFT that load it too.

    Raises:
        CheckpointError: PEFT cannot hold what is there, or a folder is not as it should be. Nothing is written.
    """
    directory = Path(directory)
    architecture, saved, tensors = read_folder(directory)
    if len(saved) != 1 or saved[0][0] is not None or type(saved[0][1]) is not TensorTrainLoRAConfig:
        raise CheckpointError(
            f"A folder of PEFT holds one adapter of the kind tt_lora, for all tasks; {directory} holds "
            f"{[(config.kind, task) for task, config in saved]}: save that one alone, or merge and save the model."
        )
    config = saved[0][1]
    try:
        native = attach(base_without_weights(architecture, directory), config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"An adapter fits the base that it names; that of {directory} does not: save it again ({error})."
        ) from None
    check_tensors({name: t.shape for name, t in adapter_state_dict(native).items()}, tensors, str(directory))
    across = [scope for scope in config.share_across if scope != "tasks"]
    if not across:
        raise CheckpointError(
            f"Adapters of PEFT have no tasks to share across; {directory} has "
            f"share_across={list(config.share_across)}: train it without."
        )
    targets = _targets(native, {path for path, _ in _native_deltas(native)})
    said = {name: value for name, value in config.to_dict().items() if name not in ("kind", *OWN_FIELDS)}
    try:
        described = TensorTrainConfig(
            **said,
            share_across=across,
            target_modules=targets,
            task_type=TaskType.SEQ_2_SEQ_LM,
        )
    except ConfigurationError as error:
        raise CheckpointError(f"PEFT's side takes what {directory} holds; it does not: {error}") from None
    model = get_peft_model(base_without_weights(architecture, directory), described)
    names = {theirs: tensors[ours] for ours, theirs in _names(native, model)}
    _put(model, {_in_model(key): tensor for key, tensor in names.items()})
    described.base_model_name_or_path = base
    model.get_base_model().config._name_or_path = base or ""  # where PEFT's card looks
    write_folder(Path(destination), lambda folder: model.save_pretrained(folder, save_embedding_layers=False))


def from_peft(directory: str | os.PathLike, destination: str | os.PathLike, base: str | None = None) -> None:
    """Write what PEFT's ``save_pretrained`` wrote, by our tuner beside a T5, as a folder that ``adapters.load`` reads.

    Args:
        base: path or name of the base model, where the folder's own configuration does not say one that is there.

    Raises:
        CheckpointError: ``adapters.load`` cannot hold what is there, the base is no T5 or cannot be found, or a folder
            is not as it should be. Nothing is written.
    """
    directory = Path(directory)
    described = read_config(directory)
    tensors = read_tensors(directory)
    if described.modules_to_save:
        raise CheckpointError(
            f"A folder of adapters.save holds deltas; {directory} has modules_to_save={described.modules_to_save} too: "
            "merge, and save the whole model."
        )
    base = base or described.base_model_name_or_path
    architecture = architecture_of(base, directory)
    described.base_model_name_or_path = None
    try:
        model = get_peft_model(base_without_weights(architecture, directory), described)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Deltas stand beside linears of the base; those of {directory} do not fit {base!r}: "
            f"use the base that it was trained on ({error})."
        ) from None
    paths = {path for path, _ in _peft_deltas(model)}
    said = {
        field.name: getattr(described, field.name)
        for field in fields(TensorTrainLoRAConfig)
        if hasattr(described, field.name) and field.name != "target_modules"
    }
    places = _native_targets(model, paths, directory)
    try:
        config = TensorTrainLoRAConfig.from_dict({"kind": "tt_lora", **said, **places})
        native = attach(base_without_weights(architecture, directory), config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"adapters.load takes what {directory} holds; it does not: {error}") from None
    names = dict(_names(native, model))
    by_name = dict(model.named_parameters())
    check_tensors({key: by_name[_in_model(key)].shape for key in names.values()}, tensors, str(directory))
    _put(native, {ours: tensors[theirs] for ours, theirs in names.items()})
    write_folder(Path(destination), lambda folder: save(native, folder))


def _native_deltas(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, host in model.named_modules():
        for controller in getattr(host, "beside", {}).values():
            yield path, controller.tasks[ALL_TASKS]


def _peft_deltas(model: PeftModel) -> Iterator[tuple[str, nn.Module]]:
    for path, layer in model.base_model.model.named_modules():
        if isinstance(layer, TensorTrainPeftLinear):
            yield path, layer.tt_lora_delta[NAME]


def _names(native: nn.Module, model: PeftModel) -> Iterator[tuple[str, str]]:
    """Pairs of a tensor's name in a folder of ``adapters.save`` and in one of PEFT, each once."""
    ours = {id(parameter): name for name, parameter in native.named_parameters()}
    theirs = {id(parameter): name for name, parameter in model.named_parameters()}
    counterparts, pairs = dict(_peft_deltas(model)), {}
    for path, delta in _native_deltas(native):
        for mine, its in zip(_numbers(delta), _numbers(counterparts[path]), strict=True):
            key = TensorTrainModel._remove_adapter_name_from_key(theirs[id(its)], NAME)
            if pairs.setdefault(ours[id(mine)], key) != key:
                raise CheckpointError(
                    f"What is one tensor on one side is one on the other; {ours[id(mine)]} would be two: "
                    "choose other linears to share across."
                )
    yield from pairs.items()


def _numbers(delta: nn.Module) -> Iterator[nn.Parameter]:
    """All Parameters of a delta, its own and those that it borrows, in one order."""
    for module in delta.modules():
        if isinstance(module, TTModule):
            for k in range(len(module.core_shapes)):
                yield from module.cores.parameters_of(k)
    yield from delta.parameters()


def _targets(model: nn.Module, paths: set[str]) -> list[str]:
    """PEFT's ``target_modules`` for these linears: their names where no other linear has one of them, or all paths."""
    names = {path.rpartition(".")[2] for path in paths}
    all_paths = {path for sublayer in find_sublayers(model) for path in sublayer.linears.values()}
    return sorted(names if {path for path in all_paths if path.rpartition(".")[2] in names} == paths else paths)


def _native_targets(model: PeftModel, paths: set[str], directory: Path) -> dict[str, Any]:
    """Fields of the kind tt_lora that name exactly these linears."""
    known = {
        path: (sublayer.stack, sublayer.layer, sublayer.kind, name)
        for sublayer in find_sublayers(model.base_model.model)
        for name, path in sublayer.linears.items()
        if sublayer.kind != "final"
    }
    wanted = [known[path] for path in paths if path in known]
    stacks, layers, kinds, names = (sorted(set(column)) for column in zip(*wanted, strict=True)) if wanted else [[]] * 4
    meant = {
        path for path, (s, n, k, name) in known.items() if s in stacks and n in layers and k in kinds and name in names
    }
    if meant != paths:
        raise CheckpointError(
            f"The kind tt_lora takes linears of attentions and feed-forwards by name, sublayer, layer and stack; "
            f"{directory} has {sorted(paths ^ meant)[0]} that no choice of these sets apart: load it through PEFT."
        )
    everywhere = {n for s, n, _, _ in known.values() if s in stacks}
    feed_forward = sorted({name for _, _, kind, name in known.values() if kind == "feed_forward"})
    of_these_names = {k for s, n, k, name in known.values() if s in stacks and n in layers and name in names}
    usual = TensorTrainLoRAConfig()
    return {
        "target_modules": None if names == feed_forward else names,
        "sublayers": usual.sublayers if of_these_names == set(kinds) else kinds,
        "stacks": usual.stacks if set(stacks) == set(usual.stacks) else stacks,
        "layers": None if set(layers) == everywhere else layers,
    }


def _in_model(key: str) -> str:
    """The name in a model of a tensor in PEFT's file."""
    return key.replace(".tt_lora_delta.", f".tt_lora_delta.{NAME}.", 1)


def _put(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    model.load_state_dict(tensors, strict=False, assign=True)
