"""Read and write deltas in folders of our PEFT tuner, without PEFT or the base model.

base_model.model.<path>.tt_lora_delta.linear.cores.0, ...    the cores of the delta at a linear
"""

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import t3nsor as t3
from adapters.algebra.base_samples import tuner_sample, write_tuner_sample
from adapters.algebra.description import shape_and_rank
from adapters.algebra.live import delta_of
from adapters.algebra.low_rank import with_useful_ranks
from adapters.algebra.peft_tensors import MARKS, TARGET_KEYS, read_by_path, target_keys, write_peft
from adapters.kinds.tensor_train import TensorTrainDelta, TensorTrainLoRAConfig
from adapters.saved.folder import PEFT_PREFIX, CheckpointError, FolderKind, read_config
from adapters.validation import ConfigurationError

SHARED = "shared_by_deltas"
"""Where the tuner keeps shared cores, in place of the path of a linear."""
FACTORS = {3: slice(0, 2), 4: slice(1, 3), 5: slice(2, 4)}
"""Position of (m_k, n_k) in the shape of a core: (m, n, r), (r, m, n, s) or (basis, r, m, n, s)."""


def read_tuner_deltas(config: dict[str, Any], directory: Path) -> tuple[dict[str, t3.TensorTrain], dict[str, Tensor]]:
    """Return trains and biases by path.

    Raises:
        CheckpointError: the tensors do not fit the configuration, cores are shared, or the folder holds something else.
    """
    if config.get("target_parameters"):
        raise CheckpointError(
            f"Algebra supports one delta for each linear; got target_parameters={config['target_parameters']} in "
            f"{directory}, with deltas for each expert: train an adapter without them."
        )
    by_path = read_by_path(directory, FolderKind.TUNER)
    if SHARED in by_path:
        raise CheckpointError(
            "Only a model tells which deltas share a core; got shared cores in "
            f"{directory}: load it with PeftModel.from_pretrained and use Deltas.of(model)."
        )
    known = {field.name for field in fields(TensorTrainLoRAConfig)} - {"target_modules"}
    trains, biases = {}, {}
    try:
        chosen = TensorTrainLoRAConfig(**{key: value for key, value in config.items() if key in known})
        for path, state in by_path.items():
            trains[path], bias = delta_of(path, _module(chosen, path, state))
            if bias is not None:
                biases[path] = bias
    except (ConfigurationError, RuntimeError) as error:
        raise CheckpointError(
            f"The tensors of a saved adapter fit its configuration; got others in {directory} "
            f"({str(error).rstrip('.')}): save it again."
        ) from None
    return trains, biases


def write_tuner(
    directory: Path, like: Path, trains: Mapping[str, t3.TensorTrain], biases: Mapping[str, Tensor]
) -> None:
    """Save these deltas as an adapter of our tuner, for the base of ``like``."""
    config = read_config(like, FolderKind.TUNER)
    useful = {path: with_useful_ranks(train) for path, train in trains.items()}
    own = {field.name for field in fields(TensorTrainLoRAConfig)} - {*TARGET_KEYS, "dropout"}
    described = {key: value for key, value in config.items() if key not in own}
    described |= {
        **shape_and_rank(useful),
        "scaling": 1.0,
        "bias": "none",
        "delta_bias": "dense" if biases else "none",
        "modules_to_save": None,
    }
    described |= target_keys(config, like, trains)
    tensors = {}
    for path, train in useful.items():
        module = f"{PEFT_PREFIX}{path}{MARKS[FolderKind.TUNER]}linear"
        tensors |= {f"{module}.cores.{k}": core for k, core in enumerate(train.cores)}
        if biases:
            tensors[f"{module}.bias"] = biases.get(path, torch.zeros(train.shape[0]))
    sample = tuner_sample(like, trains)  # before like is overwritten, if it is
    write_peft(directory, described, tensors)
    write_tuner_sample(directory, sample)


def _module(config: TensorTrainLoRAConfig, path: str, state: dict[str, Tensor]) -> TensorTrainDelta:
    """Return the module of one linear with these tensors; its sizes are the products of the factors of the cores."""
    factors = {}
    for name, tensor in state.items():
        if (core := re.fullmatch(r"linear\.cores\.(?:\w+\.)?(\d+)", name)) and tensor.dim() in FACTORS:
            factors[core[1]] = tensor.shape[FACTORS[tensor.dim()]]
    out_features, in_features = (math.prod(factor[side] for factor in factors.values()) for side in (0, 1))
    with torch.device("meta"):
        module = config.build_at_path(path, in_features, out_features)
    module.load_state_dict(state, assign=True)
    return module
