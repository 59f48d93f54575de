"""Adapters before a stack's input: what they do to the embedded tokens, and the masks that must follow.

    embed_tokens -> before -> blocks        x (batch, length, d_model) -> (batch, n + length, d_model)

The modules sit in ``stack.adapted_input``, so that no parameter of the stack changes its name. Two hooks lengthen what
comes in: one of the stack its input and its mask, one of the decoder the mask over the stack's output. Both are plain
functions and find all they need in their arguments, so that copies and replicas of the model work by themselves.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.mergeable import Mergeable
from adapters.validation import ConfigurationError


class AdaptedInput(Mergeable):
    """The adapters before the input of one stack; they change no weight."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.before = nn.ModuleDict()
        self._embedding = (embedding,)  # in a tuple, for the stack is the owner
        self.train(embedding.training)

    @classmethod
    def at(cls, model: nn.Module, path: str) -> "AdaptedInput":
        """The host in the stack at ``path``; the hooks are set on first use."""
        stack = model.get_submodule(path)
        if not hasattr(stack, "adapted_input"):
            stack.adapted_input = cls(stack.embed_tokens)
            stack.register_forward_pre_hook(lengthen_input, with_kwargs=True)
            decoder = getattr(model.get_submodule(path.rpartition(".")[0]), "decoder", None)
            if decoder is not None:
                decoder.register_forward_pre_hook(lengthen_encoder_mask, with_kwargs=True)
        return stack.adapted_input

    def start(self, adapter: nn.Module) -> None:
        adapter.start_from(self._embedding[0].weight.detach())

    def merged_weights(self) -> dict[str, Tensor]:
        """Nothing: only inactive adapters get here."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, n + length, d_model), as the active adapters have it."""
        for controller in self.before.values():
            if controller.active is not None:
                x = controller(x)
        return x


def lengthen_input(stack: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict] | None:
    """Embed the tokens here, let the adapters act on them, and lengthen the stack's mask by as many ones."""
    given = dict(zip(inspect.signature(stack.forward).parameters, args, strict=False)) if args else {}
    given |= kwargs
    ids, x, mask = (given.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
    if (ids is None) == (x is None):
        return None  # the stack refuses both and neither
    x = stack.embed_tokens(ids) if x is None else x
    longer = stack.adapted_input(x)
    if mask is not None:
        given["attention_mask"] = lengthened(mask, longer.shape[1] - x.shape[1])
    return (), {**given, "input_ids": None, "inputs_embeds": longer}


def lengthen_encoder_mask(decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """Let the decoder see all of an encoder's output that is longer than the mask of the tokens."""
    hidden, mask = kwargs.get("encoder_hidden_states"), kwargs.get("encoder_attention_mask")
    if hidden is not None and mask is not None:
        kwargs = {**kwargs, "encoder_attention_mask": lengthened(mask, hidden.shape[1] - mask.shape[-1])}
    return args, kwargs


def lengthened(mask: Tensor, count: int) -> Tensor:
    """``mask`` (batch, length) with ``count`` ones before it.

    Raises:
        ConfigurationError: the mask is not one number for each token.
    """
    if count <= 0:
        return mask
    if mask.dim() != 2:
        raise ConfigurationError(
            f"A prompt lengthens a mask of shape (batch, length); got one of shape {tuple(mask.shape)}: "
            "pass the mask of the padding."
        )
    return torch.cat([mask.new_ones(mask.shape[0], count), mask], dim=1)
