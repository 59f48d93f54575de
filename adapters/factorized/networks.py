"""The networks of a factorized model in one file, without the rest of the model.

    start.safetensors     cores, scalars and bases by their names in the model; metadata: the ``NetworkSpec`` of each
                          network by path, and a note of the caller

A run keeps its start in this way: the rest is the dense model that it was made from.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from adapters.factorized.layers import NetworkSpec, factorized_modules
from adapters.factorized.pretrained import put_networks, refresh_configuration
from adapters.saved.files import replace_file
from adapters.saved.folder import CheckpointError

SPECS, NOTE = "networks", "note"


def network_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the networks of a factorized model by name, each once; biases do not belong to them."""
    own = {
        id(parameter)
        for module in factorized_modules(model).values()
        for name, parameter in module.named_parameters()
        if name != "bias"
    }
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in own}


def save_networks(model: nn.Module, path: Path, note: Any) -> None:
    """Write the networks of a factorized model, and a note in JSON, completely or not at all."""
    specs = {place: module.spec.to_dict() for place, module in factorized_modules(model).items()}
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in network_parameters(model).items()}
    metadata = {SPECS: json.dumps(specs), NOTE: json.dumps(note)}
    replace_file(path, lambda partial: save_file(tensors, partial, metadata=metadata))


def read_note(path: Path) -> Any:
    """The note of a file; None if there is no readable file."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get(NOTE, "null"))
    except (OSError, SafetensorError, ValueError):
        return None


def load_networks(model: nn.Module, path: Path) -> nn.Module:
    """Replace weights of a dense model by the networks of a file, in place, and return the same model.

    Raises:
        CheckpointError: the file cannot be read, or its networks do not fit the model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            specs = json.loads(file.metadata()[SPECS])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"A file of networks is one that a run wrote; got {path} ({error}): write it again."
        ) from None
    put_networks(model, {place: NetworkSpec.from_dict(spec) for place, spec in specs.items()})
    model.load_state_dict(tensors, strict=False, assign=True)
    refresh_configuration(model)
    if absent := [name for name, parameter in network_parameters(model).items() if parameter.is_meta]:
        raise CheckpointError(
            f"A file of networks has all of their cores; got {path} without {absent[0]}: write it again."
        )
    return model
