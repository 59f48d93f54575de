"""Deltas in folders of PEFT's ``save_pretrained``: our tuner's and LoRA's, read and written without PEFT or the base.

    adapter_config.json         peft_type TT_LORA or LORA, the method's fields, the linears it aims at
    adapter_model.safetensors   base_model.model.<path>.tt_lora_delta.linear.cores.0, ...
                                base_model.model.<path>.lora_A.weight (r, in), .lora_B.weight (out, r)

LoRA (Hu et al. 2021, arXiv:2106.09685) is T = (alpha / r) B A, alpha / sqrt(r) in its rank-stabilised form
(Kalajdzievski 2023, arXiv:2312.03732). It is written with alpha = r.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import t3nsor as t3
from adapters.algebra.description import common_value, shape_and_rank
from adapters.algebra.live import PEFT_PREFIX, Parts, delta_of
from adapters.algebra.low_rank import with_useful_ranks
from adapters.kinds.tensor_train import TensorTrainDelta, TensorTrainLoRAConfig
from adapters.saved.checkpoint import CONFIG_NAME, WEIGHTS_NAME, CheckpointError
from adapters.saved.files import replace_file
from adapters.saved.model_card import remove_model_card
from adapters.validation import ConfigurationError

TUNER, LORA = "TT_LORA", "LORA"
TUNER_MARK, LORA_MARK = ".tt_lora_delta.", ".lora_"
"""What stands in the names of tensors between the path of a linear and what belongs to its delta."""
SHARED = f"shared_by_deltas{TUNER_MARK}"
"""How the names begin of what the deltas of our tuner share."""
BASE_KEYS = ("auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode", "revision", "task_type")
"""What a configuration of PEFT says of the base and not of the method."""
TARGET_KEYS = ("exclude_modules", "layers_pattern", "layers_to_transform", "target_modules")
FACTORS = {3: slice(0, 2), 4: slice(1, 3), 5: slice(2, 4)}
"""Where m_k and n_k stand among the sizes of a core's tensor: (m, n, r), (r, m, n, s) or (basis, r, m, n, s)."""
OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of LoRA that change the base's weights too, so that B A is no change of the base that one has."""


def read_config(directory: Path) -> dict[str, Any]:
    """The JSON object in a folder's adapter_config.json."""
    path = directory / CONFIG_NAME
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"A saved adapter holds {CONFIG_NAME} with a JSON object; {path} cannot be read ({error}): check the path."
        ) from None
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{path} holds a JSON object; it holds a {type(config).__name__}: save the adapter again."
        )
    return config


def read_peft(directory: Path) -> Parts:
    """T and c by path; refuses what is in the folder beside them."""
    config, tensors = read_config(directory), _read_tensors(directory)
    readers = {TUNER: _read_tuner, LORA: _read_lora}
    if config.get("peft_type") not in readers:
        raise CheckpointError(
            f"Algebra takes PEFT's methods {', '.join(readers)}; {directory} holds {config.get('peft_type')!r}: merge "
            "that one into its base instead."
        )
    return *readers[config["peft_type"]](config, tensors, directory), None


def write_tuner(
    directory: Path, like: Path, trains: Mapping[str, t3.TensorTrain], biases: Mapping[str, Tensor]
) -> None:
    """Save these deltas as an adapter of our tuner, for the base of ``like``."""
    config = read_config(like)
    held = {path: with_useful_ranks(train) for path, train in trains.items()}
    own = {field.name for field in fields(TensorTrainLoRAConfig)} - {*TARGET_KEYS, "dropout"}
    described = {key: value for key, value in config.items() if key not in own}
    described |= {**shape_and_rank(held), "bias": "dense" if biases else "none", "modules_to_save": None}
    described |= _targets(config, like, trains)
    tensors = {}
    for path, train in held.items():
        module = f"{PEFT_PREFIX}{path}.tt_lora_delta.linear"
        tensors |= {f"{module}.cores.{k}": core for k, core in enumerate(train.cores)}
        if biases:
            tensors[f"{module}.bias"] = biases.get(path, torch.zeros(train.shape[0]))
    _write(directory, described, tensors)


def write_lora(
    directory: Path, like: Path | None, trains: Mapping[str, t3.TensorTrain], biases: Mapping[str, Tensor]
) -> None:
    """Save these deltas as LoRA with alpha = r, for the base of ``like`` where that says one."""
    config = {} if like is None else read_config(like)
    tensors, ranks = {}, {}
    for path, train in trains.items():
        B, A = t3.to_low_rank(train)
        ranks[path] = A.shape[0]
        tensors[f"{PEFT_PREFIX}{path}.lora_A.weight"] = A
        tensors[f"{PEFT_PREFIX}{path}.lora_B.weight"] = B
        if biases:
            tensors[f"{PEFT_PREFIX}{path}.lora_B.bias"] = biases.get(path, torch.zeros(train.shape[0]))
    rank, pattern = common_value(ranks, sorted(ranks.values(), reverse=True), lambda candidate, _: candidate)
    described = {key: config[key] for key in BASE_KEYS if key in config}
    described |= {"peft_type": LORA, "r": rank, "lora_alpha": rank, "rank_pattern": pattern, "alpha_pattern": pattern}
    described |= {"bias": "none", "lora_bias": bool(biases), **_targets(config, like, trains)}
    _write(directory, described, tensors)


def _read_tuner(
    config: dict[str, Any], tensors: dict[str, Tensor], directory: Path
) -> tuple[dict[str, t3.TensorTrain], dict[str, Tensor]]:
    if any(name.startswith(SHARED) for name in tensors):
        raise CheckpointError(
            f"What deltas share in PEFT is told by the model that they are in; {directory} holds shared cores: load it "
            "by PeftModel and take Deltas.of(model)."
        )
    known = {field.name for field in fields(TensorTrainLoRAConfig)} - {"target_modules"}
    trains, biases = {}, {}
    try:
        chosen = TensorTrainLoRAConfig(**{key: value for key, value in config.items() if key in known})
        for path, state in _by_path(tensors, TUNER_MARK, directory).items():
            module = _module(chosen, path, state)
            trains[path], bias = delta_of(path, module)
            if bias is not None:
                biases[path] = bias
    except CheckpointError:
        raise
    except (ConfigurationError, RuntimeError) as error:
        raise CheckpointError(
            f"The tensors of a saved adapter are those of its configuration; those in {directory} are not ({error}): "
            "save it again."
        ) from None
    return trains, biases


def _module(config: TensorTrainLoRAConfig, path: str, state: dict[str, Tensor]) -> TensorTrainDelta:
    """The module of one linear, with these tensors; its sizes are the products of the factors that they have."""
    factors = {}
    for name, tensor in state.items():
        if (core := re.fullmatch(r"linear\.cores\.(?:\w+\.)?(\d+)", name)) and tensor.dim() in FACTORS:
            factors[core[1]] = tensor.shape[FACTORS[tensor.dim()]]
    out_features, in_features = (math.prod(factor[side] for factor in factors.values()) for side in (0, 1))
    with torch.device("meta"):
        module = config.build_at_path(path, in_features, out_features)
    module.load_state_dict(state, assign=True)
    return module


def _read_lora(
    config: dict[str, Any], tensors: dict[str, Tensor], directory: Path
) -> tuple[dict[str, t3.TensorTrain], dict[str, Tensor]]:
    _check_lora(config, directory)
    trains, biases = {}, {}
    for path, state in _by_path(tensors, LORA_MARK, directory).items():
        A, B = state.pop("A.weight", None), state.pop("B.weight", None)
        bias = state.pop("B.bias", None)
        if state or A is None or B is None or A.dim() != 2 or B.dim() != 2 or A.shape[0] != B.shape[1]:
            given = f"{sorted(state)} beside them" if state else "other ones"
            raise CheckpointError(
                f"LoRA of a linear is lora_A (r, in) and lora_B (out, r); {directory} has {given} at {path}: only "
                "plain LoRA of linears is a vector here."
            )
        scale = _lora_scale(config, path, A.shape[0])
        trains[path] = t3.from_low_rank(scale * B.double(), A.double())
        if bias is not None:
            biases[path] = scale * bias.double()
    return trains, biases


def _lora_scale(config: dict[str, Any], path: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r)."""
    alphas = config.get("alpha_pattern") or {}
    key = next((key for key in alphas if re.match(rf"(.*\.)?({key})$", path)), None)
    alpha = config.get("lora_alpha", 8) if key is None else alphas[key]
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _check_lora(config: dict[str, Any], directory: Path) -> None:
    """Refuse what makes LoRA another map than (alpha / r) B A on the base that one has."""
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(OTHER_BASE):
        raise CheckpointError(
            f"A vector is a change of the base that one has; {directory} was started by init_lora_weights={start!r}, "
            "which changes the base too: save it with path_initial_model_for_weight_conversion, as PEFT documents."
        )
    forms = ("use_dora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "layer_replication", "arrow_config")
    forms += ("monteclora_config", "kasa_config", "target_parameters")
    for key in forms:
        if config.get(key):
            raise CheckpointError(
                f"Only plain LoRA is a vector, T = (alpha / r) B A; {directory} has {key}={config[key]!r}: merge it "
                "into its base instead."
            )


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    """The tensors of a folder, by their names in the base."""
    path = directory / WEIGHTS_NAME
    try:
        return {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"A saved adapter has its tensors in {WEIGHTS_NAME}; {path} cannot be read ({error}): save it again by "
            "safetensors."
        ) from None


def _by_path(tensors: dict[str, Tensor], mark: str, directory: Path) -> dict[str, dict[str, Tensor]]:
    """{path: {name after the mark: tensor}}; refuses a tensor without the mark."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        path, is_delta, rest = name.partition(mark)
        if not is_delta:
            raise CheckpointError(
                f"Algebra takes deltas of linears only; {directory} holds {name!r} too: save the adapter without what "
                "else was trained."
            )
        found.setdefault(path, {})[rest] = tensor
    return found


def _targets(config: dict[str, Any], like: Path | None, trains: Mapping[str, t3.TensorTrain]) -> dict[str, Any]:
    """The keys by which PEFT finds the linears: those of ``like`` where it has the same ones, else all their paths."""
    mark = {TUNER: TUNER_MARK, LORA: LORA_MARK}.get(config.get("peft_type"))
    if mark and {name.partition(mark)[0] for name in _read_tensors(like)} == trains.keys():
        return {key: config[key] for key in TARGET_KEYS if key in config}
    return {**dict.fromkeys(TARGET_KEYS), "target_modules": sorted(trains)}


def _write(directory: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Both files of a folder, float32, each whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    remove_model_card(directory)
    stored = {name: tensor.float().contiguous() for name, tensor in sorted(tensors.items())}
    replace_file(directory / WEIGHTS_NAME, lambda path: save_file(stored, path, metadata={"format": "pt"}))
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    replace_file(directory / CONFIG_NAME, lambda path: path.write_text(text))
