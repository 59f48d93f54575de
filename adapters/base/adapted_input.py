"""Adapters before a stack's input, and the masks that have to match the longer input.

    embed_tokens -> before -> blocks        x (batch, length, d_model) -> (batch, n + length, d_model)

The modules are in ``stack.adapted_input``, so that no parameter of the stack changes its name. Two forward hooks do the
lengthening: one on the stack, of its input and mask, and one on the decoder, of the mask over the stack's output. Both
are plain functions of their arguments, so that copies and replicas of the model work without further setup.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.mergeable import Mergeable
from adapters.base.places import Place
from adapters.validation import ConfigurationError


class AdaptedInput(Mergeable):
    """The adapters before the input of one stack, which change no weight."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.before = nn.ModuleDict()
        self._embedding = (embedding,)  # in a tuple, because the stack owns it
        self.train(embedding.training)

    @classmethod
    def install(cls, model: nn.Module, path: str) -> "AdaptedInput":
        """The host in the stack at ``path``; the hooks are registered on first use."""
        stack = model.get_submodule(path)
        if not hasattr(stack, "adapted_input"):
            stack.adapted_input = cls(stack.embed_tokens)
            stack.register_forward_pre_hook(lengthen_input, with_kwargs=True)
            decoder = getattr(model.get_submodule(path.rpartition(".")[0]), "decoder", None)
            if decoder is not None:
                decoder.register_forward_pre_hook(lengthen_encoder_mask, with_kwargs=True)
        return stack.adapted_input

    def uninstall(self, model: nn.Module, path: str) -> None:
        """Remove this host, which is at ``path`` inside its stack, and both hooks."""
        stack = model.get_submodule(path.rpartition(".")[0])
        del stack.adapted_input
        for module in model.modules():
            _remove_pre_hooks(module, (lengthen_input, lengthen_encoder_mask))

    @classmethod
    def base_at(cls, model: nn.Module, path: str, config: Any) -> nn.Module:
        return model.get_submodule(path).embed_tokens

    @classmethod
    def _build(cls, base: nn.Module, weight: Tensor, config: Any, place: Place) -> nn.Module:
        return config.build(weight)

    def initialize_adapter(self, adapter: nn.Module) -> None:
        adapter.start_from(self._embedding[0].weight.detach())

    def merged_weights(self) -> dict[str, Tensor]:
        """Nothing: an adapter that is active here cannot be merged."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, n + length, d_model), by the active adapters."""
        for controller in self.before.values():
            if controller.active is not None:
                x = controller(x)
        return x


def lengthen_input(stack: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict] | None:
    """Embed the tokens, apply the adapters to them, and prepend a one to the stack's mask for each new position."""
    given = dict(zip(inspect.signature(stack.forward).parameters, args, strict=False)) if args else {}
    given |= kwargs
    ids, x, mask = (given.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
    if (ids is None) == (x is None):
        return None  # the stack itself raises the error about both or neither
    x = stack.embed_tokens(ids) if x is None else x
    longer = stack.adapted_input(x)
    if mask is not None:
        given["attention_mask"] = lengthened(mask, longer.shape[1] - x.shape[1])
    return (), {**given, "input_ids": None, "inputs_embeds": longer}


def lengthen_encoder_mask(decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """Prepend ones to the decoder's mask over an encoder's output that is longer than the mask of the tokens."""
    hidden, mask = kwargs.get("encoder_hidden_states"), kwargs.get("encoder_attention_mask")
    if hidden is not None and mask is not None:
        kwargs = {**kwargs, "encoder_attention_mask": lengthened(mask, hidden.shape[1] - mask.shape[-1])}
    return args, kwargs


def lengthened(mask: Tensor, count: int) -> Tensor:
    """``mask`` (batch, length) with ``count`` ones prepended.

    Raises:
        ConfigurationError: the mask is not of shape (batch, length).
    """
    if count <= 0:
        return mask
    if mask.dim() != 2:
        raise ConfigurationError(
            f"A prompt lengthens a mask of shape (batch, length); got one of shape {tuple(mask.shape)}: "
            "pass the padding mask."
        )
    return torch.cat([mask.new_ones(mask.shape[0], count), mask], dim=1)


def _remove_pre_hooks(module: nn.Module, hooks: tuple[Callable[..., Any], ...]) -> None:
    """Remove these functions from the module's hooks; a copied model has them without the handles."""
    for number in [number for number, hook in module._forward_pre_hooks.items() if hook in hooks]:
        del module._forward_pre_hooks[number]
        module._forward_pre_hooks_with_kwargs.pop(number, None)
