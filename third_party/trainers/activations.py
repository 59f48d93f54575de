"""Bytes that a forward pass saves for its backward pass, by layer.

    with saved_activations(model) as layers:
        loss = compute_loss(model(**batch))
    layers                                      {"encoder 0": 38912, ..., "lm_head": 4096, "loss": 7680}

Each storage that autograd saves is counted once, for the layer that saves it first. Layers are those of
``adapters.base.sublayers.layer_of``: "encoder 3" and "decoder 3" for blocks, the name of the part outside them
("shared", "encoder" for the rest of a stack, "lm_head"), and "loss" for what no module saves. Parameters, buffers and
views of them are not counted; a copy in another dtype is. With activation checkpointing a block saves only its inputs,
and only these are counted; transformers before 5.23 saves them before it enters the block, so that they count for the
rest of the stack. The hooks return the tensors unchanged.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.sublayers import layer_of

OUTSIDE = "loss"


@contextlib.contextmanager
def saved_activations(model: nn.Module) -> Iterator[dict[str, int]]:
    """Count the bytes that a forward pass in the body saves; yields them by layer."""
    layers: dict[str, int] = {}
    entered = [OUTSIDE]
    own = [*model.parameters(), *model.buffers()]
    seen = {tensor.untyped_storage().data_ptr() for tensor in own}
    held = []  # so that no address is reused while storages are distinguished by it

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            held.append(storage)
            layers[entered[-1]] = layers.get(entered[-1], 0) + storage.nbytes()
        return tensor

    def enter(layer: str) -> Callable[..., None]:
        return lambda *_: entered.append(layer)

    def leave(*_: Any) -> None:
        entered.pop()

    hooks = []
    for name, module in model.named_modules():
        if begins_layer(name):
            hooks += [module.register_forward_pre_hook(enter(layer_of(name))), module.register_forward_hook(leave)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            yield layers
    finally:
        for hook in hooks:
            hook.remove()


def begins_layer(name: str) -> bool:
    """Whether the module of this name is in another layer than its parent."""
    parent = name.rpartition(".")[0]
    return name != "" and (parent == "" or layer_of(name) != layer_of(parent))
