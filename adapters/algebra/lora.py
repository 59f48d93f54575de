"""Read and write deltas in folders of PEFT's LoRA, without PEFT or the base model.

    base_model.model.<path>.lora_A.weight    A (r, in)
    base_model.model.<path>.lora_B.weight    B (out, r)

    T = s B A    s = alpha / r          LoRA (Hu et al. 2021, arXiv:2106.09685)
                 s = alpha / sqrt(r)    rank-stabilised (Kalajdzievski 2023, arXiv:2312.03732)

It is written with alpha = r and one r for all linears, the largest, by zeros in rows of A and columns of B. With ranks
r_p = alpha_p of single linears, in rank_pattern and alpha_pattern, readers would differ:

    PEFT         reads both patterns                                        s = alpha_p / r_p
    vLLM         reads neither in older versions (vllm/lora/peft_helper.py) s = alpha / r
    llama.cpp    reads lora_alpha alone (convert_lora_to_gguf.py)           s = alpha / r_p
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

import t3nsor as t3
from adapters.algebra.peft_tensors import MARKS, read_by_path, target_keys, write_peft
from adapters.saved.folder import PEFT_PREFIX, CheckpointError, FolderKind, read_config

BASE_KEYS = ("auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode", "revision", "task_type")
"""Keys of PEFT's configurations that describe the base model, not the method."""
OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations of LoRA that change the base weights too, so that B A is not a change of the original base."""
OTHER_FORMS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "layer_replication",
    "arrow_config",
    "monteclora_config",
    "kasa_config",
    "target_parameters",
)
"""Keys of LoRA that make it a map other than s B A."""


def read_lora_deltas(config: dict[str, Any], directory: Path) -> tuple[dict[str, t3.TensorTrain], dict[str, Tensor]]:
    """Return trains and biases by path, scaling folded in.

    Raises:
        CheckpointError: it is not plain LoRA of linears, or the folder holds something else.
    """
    _check_form(config, directory)
    trains, biases = {}, {}
    for path, state in read_by_path(directory, FolderKind.LORA).items():
        A, B = state.pop("A.weight", None), state.pop("B.weight", None)
        bias = state.pop("B.bias", None)
        if state or A is None or B is None or A.dim() != 2 or B.dim() != 2 or A.shape[0] != B.shape[1]:
            given = f"{sorted(state)} as well" if state else "other tensors"
            raise CheckpointError(
                f"LoRA of a linear must be lora_A (r, in) and lora_B (out, r); got {given} at {path} in {directory}: "
                "only plain LoRA of linears is supported."
            )
        scaling = _scaling(config, path, A.shape[0])
        trains[path] = t3.from_low_rank(scaling * B.double(), A.double())
        if bias is not None:
            biases[path] = scaling * bias.double()
    return trains, biases


def write_lora(
    directory: Path,
    like: Path | None,
    trains: Mapping[str, t3.TensorTrain],
    biases: Mapping[str, Tensor],
    described: Mapping[str, Any] | None = None,
) -> None:
    """Save these deltas as LoRA with alpha = r, for the base of ``like`` if that names one.

    Args:
        described: further keys of the configuration, which take precedence over those of ``like``.
    """
    config = {} if like is None else read_config(like)
    factors = {path: t3.to_low_rank(train) for path, train in trains.items()}
    rank = max(A.shape[0] for _, A in factors.values())
    tensors = {}
    for path, (B, A) in factors.items():
        zeros = rank - A.shape[0]
        prefix = f"{PEFT_PREFIX}{path}{MARKS[FolderKind.LORA]}"
        tensors[f"{prefix}A.weight"] = pad(A, (0, 0, 0, zeros))  # (r_p, in) -> (r, in)
        tensors[f"{prefix}B.weight"] = pad(B, (0, zeros))  # (out, r_p) -> (out, r)
        if biases:
            tensors[f"{prefix}B.bias"] = biases.get(path, torch.zeros(len(B)))
    keys = {key: config[key] for key in BASE_KEYS if key in config} | target_keys(config, like, trains)
    keys |= {"peft_type": FolderKind.LORA.value, "bias": "none", "lora_bias": bool(biases)}
    write_peft(directory, {**keys, "r": rank, "lora_alpha": rank, **(described or {})}, tensors)


def _scaling(config: dict[str, Any], path: str, rank: int) -> float:
    """Return alpha / r, or alpha / sqrt(r)."""
    alphas = config.get("alpha_pattern") or {}
    key = next((key for key in alphas if re.match(rf"(.*\.)?({key})$", path)), None)
    alpha = config.get("lora_alpha", 8) if key is None else alphas[key]
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _check_form(config: dict[str, Any], directory: Path) -> None:
    """Check that the adapter is T = s B A on the original base model."""
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(OTHER_BASE):
        raise CheckpointError(
            f"A delta is a change of the original base; got init_lora_weights={init!r} in {directory}, which changes "
            "the base too: save it with path_initial_model_for_weight_conversion, see PEFT's documentation."
        )
    for key in OTHER_FORMS:
        if config.get(key):
            raise CheckpointError(
                f"Plain LoRA is supported, T = (alpha / r) B A; got {key}={config[key]!r} in {directory}: merge it "
                "into its base model instead."
            )
