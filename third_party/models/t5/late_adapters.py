"""Checkpoints of whole models with adapters that PEFT makes from the base weights.

Such adapters cannot be attached to an empty model and then loaded with it, because their shapes and fixed tensors come
from the values of the base. So the base is loaded first, then they are attached, then their own tensors are read.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import safe_open
from torch import Tensor, nn

import adapters
from adapters.freezing import adapter_parameters
from adapters.saved.state import adapter_buffers, check_tensors, load_tensors

ADAPTER_TENSORS = (r"\.tasks\.", r"^shared_parameters\.")
"""Patterns of tensor names that are not in the base and are read later."""


def state_dict_without_repetition(model: nn.Module) -> dict[str, Tensor]:
    """The state_dict with each tensor of the adapters once; layers of PEFT may share some."""
    state = model.state_dict()
    once = {**adapter_parameters(model), **adapter_buffers(model)}
    places = tuple(f"{path}." for path, m in model.named_modules() if isinstance(m, adapters.AdapterController))
    return {name: tensor for name, tensor in state.items() if name in once or not name.startswith(places)}


def attach_and_read(model: nn.Module, path: Any, kwargs: dict[str, Any]) -> None:
    """Attach the configured adapters to the loaded base, and read those of their tensors that the checkpoint has.

    Args:
        model: the base, loaded.
        path: a folder, or the name of a repository that has just been loaded.
        kwargs: the arguments of ``from_pretrained``, of which those that locate files are used.
    """
    own = set(model.state_dict())
    for task, adapter in model.config.attachments():
        adapters.attach(model, adapter, task)
    expected = {name: t.shape for name, t in adapters.adapter_state_dict(model).items() if name not in own}
    folder = Path(path)
    if not folder.is_dir():
        where = {key: kwargs[key] for key in ("revision", "cache_dir") if key in kwargs}
        folder = Path(snapshot_download(str(path), local_files_only=True, **where))
    tensors = {}
    for file in sorted((folder / kwargs.get("subfolder", "")).glob("*.safetensors")):
        with safe_open(file, framework="pt", device="cpu") as reader:
            tensors |= {name: reader.get_tensor(name) for name in expected.keys() & set(reader.keys())}
    if tensors:
        check_tensors(expected, tensors, str(path))
        load_tensors(model, tensors)
